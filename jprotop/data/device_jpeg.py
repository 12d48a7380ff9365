"""A JPEG round trip in JAX: what an attack must survive if its picture is saved, with a gradient.

It acts on what it is given. On the pictures that the network sees this is *after* the resize,
whereas the paper's JPEG tables (Section 4) compress crops at their native resolution, before the
resize: those go through `jpeg.compress`, which is Pillow's.

Every step is libjpeg's, as Pillow calls it: standard tables, 4:2:0, smooth upsampling of the
chroma. What differs is where a sum of floats falls on the other side of a rounding: birds of CUB
at 224 px are within 0.2 grey levels of Pillow on average, at any quality.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Integer, Real

# ITU-T T.81, Annex K.1: quantisation at quality 50, by vertical and horizontal frequency.
LUMA = np.array(
  [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
  ],
  np.float32,
)
CHROMA = np.full((8, 8), 99, np.float32)
CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# JFIF: Y of R, G, B; Cb and Cr are the scaled differences of B and R to it.
_Y = np.array([0.299, 0.587, 0.114])
_TO_YCBCR = np.stack([_Y, ([0, 0, 1] - _Y) / 1.772, ([1, 0, 0] - _Y) / 1.402])
_TO_RGB = np.linalg.inv(_TO_YCBCR)

# Orthonormal DCT-II of 8 values: frequency by place.
_DCT = np.sqrt(2 / 8) * np.cos(np.pi / 8 * np.outer(np.arange(8), np.arange(8) + 0.5))
_DCT[0] /= np.sqrt(2)


def round_trip(
  images: Float[Array, "N H W 3"], quality: int | Integer[Array, ""]
) -> Float32[Array, "N H W 3"]:
  """Images as they come back from JPEG files of a quality, by default settings of Pillow (4:2:0).

  Rounding passes the gradient straight through; values cut off at black or white pass none. At
  quality 100 the brightness is hence differentiated as by the identity.

  Args:
    images: in [0, 1], of any H and W. They are first rounded to 8 bits.
    quality: 1 to 100; may be traced.

  Returns:
    Multiples of 1 / 255 in [0, 1].
  """
  height, width = images.shape[1:3]
  rgb = _round(_clip(images.astype(jnp.float32) * 255))
  y, cb, cr = jnp.moveaxis(_colours(rgb, _TO_YCBCR), -1, 0)
  luma = _code(_round(y) - 128, quantisation(LUMA, quality)) + 128
  chroma = []
  for plane in (cb, cr):
    # Pure blue and red lie at 127.5, for which 8 bits have no room above.
    plane = _subsample(_straight(plane, jnp.minimum(jnp.floor(plane + 0.5), 127)))
    coded = _code(plane, quantisation(CHROMA, quality))
    coded = coded[:, : (height + 1) // 2, : (width + 1) // 2]
    chroma.append(_upsample(coded)[:, :height, :width])
  return _clip(_round(_colours(jnp.stack([luma, *chroma], axis=-1), _TO_RGB))) / 255


def quantisation(
  table: Real[np.ndarray, "8 8"], quality: int | Integer[Array, ""]
) -> Float32[Array, "8 8"]:
  """libjpeg's scaling of a table for quality 50 to another, whole numbers in [1, 255]."""
  of = jnp.asarray(quality, jnp.float32)
  percent = jnp.where(of < 50, jnp.floor(5000 / of), 200 - 2 * of)
  return jnp.clip(jnp.floor((table * percent + 50) / 100), 1, 255)


def _code(plane: jax.Array, table: jax.Array) -> jax.Array:
  """A plane [N, H, W] in [-128, 127] with the DCT of its 8 x 8 blocks quantised by a table."""
  count, height, width = plane.shape
  plane = _pad(plane, 8, 8)
  blocks = plane.reshape(count, plane.shape[1] // 8, 8, plane.shape[2] // 8, 8)
  table = table[None, None, :, None, :]
  # libjpeg knows frequencies to an eighth, so that ties are common; they go away from zero.
  eighths = _round(8 * _transform(blocks, _DCT)) / (8 * table)
  whole = jnp.sign(eighths) * jnp.floor(jnp.abs(eighths) + 0.5)
  frequencies = _straight(eighths, whole) * table
  decoded = _round(_transform(frequencies, _DCT.T)).reshape(plane.shape)
  return _clip(decoded[:, :height, :width] + 128) - 128


def _transform(blocks: jax.Array, matrix: np.ndarray) -> jax.Array:
  """matrix @ block @ matrix.T of blocks [N, rows, 8, columns, 8]."""
  factor = jnp.asarray(matrix, jnp.float32)
  blocks = jnp.einsum("nriws,us->nriwu", blocks, factor, precision="highest")
  return jnp.einsum("nriwu,vi->nrvwu", blocks, factor, precision="highest")


def _subsample(plane: jax.Array) -> jax.Array:
  """Means of 2 x 2 pixels; halves and quarters go down and up in turn from column to column."""
  plane = _pad(plane, 2, 16)
  count, height, width = plane.shape
  total = plane.reshape(count, height // 2, 2, width // 2, 2).sum((2, 4))
  bias = 1 + jnp.arange(width // 2) % 2
  return _floor((total + bias[None, None]) / 4)


def _upsample(plane: jax.Array) -> jax.Array:
  """A plane [N, h, w] twice as high and wide: 3/4 of the nearest value, 1/4 of the next one."""
  if plane.shape[2] <= 2:  # libjpeg does not smooth what is this narrow.
    return plane.repeat(2, axis=1).repeat(2, axis=2)
  rows = jnp.pad(plane, ((0, 0), (1, 1), (0, 0)), "edge")
  pairs = [3 * plane + rows[:, :-2], 3 * plane + rows[:, 2:]]
  plane = jnp.stack(pairs, axis=2).reshape(plane.shape[0], -1, plane.shape[2])
  columns = jnp.pad(plane, ((0, 0), (0, 0), (1, 1)), "edge")
  pairs = [3 * plane + columns[..., :-2] + 8, 3 * plane + columns[..., 2:] + 7]
  return _floor(jnp.stack(pairs, axis=3).reshape(*plane.shape[:2], -1) / 16)


def _colours(pixels: jax.Array, matrix: np.ndarray) -> jax.Array:
  """Each pixel [..., 3] times a matrix [3, 3]."""
  return jnp.einsum("...i,ji->...j", pixels, jnp.asarray(matrix, jnp.float32), precision="highest")


def _pad(plane: jax.Array, rows: int, columns: int) -> jax.Array:
  """A plane [N, H, W], its border repeated until H and W are multiples of rows and columns."""
  height, width = plane.shape[1:]
  return jnp.pad(plane, ((0, 0), (0, -height % rows), (0, -width % columns)), "edge")


def _straight(x: jax.Array, rounded: jax.Array) -> jax.Array:
  """`rounded`, with the gradient of x."""
  return x + jax.lax.stop_gradient(rounded - x)


def _round(x: jax.Array) -> jax.Array:
  return _straight(x, jnp.floor(x + 0.5))


def _floor(x: jax.Array) -> jax.Array:
  return _straight(x, jnp.floor(x))


def _clip(x: jax.Array) -> jax.Array:
  """x in [0, 255]. Pure black and white pass their gradient: jnp.clip would halve it."""
  return jnp.where((x < 0) | (x > 255), jax.lax.stop_gradient(jnp.clip(x, 0, 255)), x)
