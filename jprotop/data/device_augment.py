"""The copies of `augment`, made by JAX from crops that lie on the device, one resampling each.

`augment` is the reference. It transforms a crop at its native resolution, then flips and resizes
it. Here the crop is resized already (S x S, its aspect ratio not kept), so that angles and pixels
of a drawn copy are those of the crop's own width and height, and transform and flip are composed
into one map from places in the result to places in the resized crop. What differs:

- Sampling is bilinear, not bicubic, and what it gives is not rounded to 8 bits.
- The kind of a copy is drawn, a quarter each, unless it is told: copy % 4, as in `augment`, makes
  exactly ten of 40 copies.
- JPEG at native resolution (Section 4) cannot come in between.

Everything is a pure function of its arguments and takes one crop: `jax.vmap` and `jax.jit` apply.
Coordinates are continuous as in `augment`: pixel i covers [i, i + 1), x runs right, y down.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Integer, Key, Real, UInt8

from jprotop.data.augment import FLIP_PROBABILITY

ROTATE, SKEW, SHEAR, DISTORT = KINDS = range(4)  # In the order of augment.TRANSFORMS.
_MAX_ROTATION, _MAX_SHEAR = 15, 10  # Degrees.
_SKEW_PART = 5  # Up to a fifth of the longer side.
_MESH, _MAX_OFFSET = 10, 5  # Tiles along each side; pixels.

# Which way skews move the corners (top left, top right, bottom right, bottom left), outwards: one
# coordinate alone, or those of two corners that lengthen the left, right, top or bottom side.
_OUTWARDS = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
_CORNERS = np.eye(8, dtype=int).reshape(8, 4, 2) * _OUTWARDS
_TILTS = _CORNERS[[1, 3, 0, 4]] + _CORNERS[[7, 5, 2, 6]]
# Of four ways to skew, three choose a tilt (of 4, 2 or 2 sides) and one a corner: 6 to 1.
_SKEWS = np.concatenate([np.repeat(_TILTS, 6, axis=0), _CORNERS])


class Copy(NamedTuple):
  """Parameters of one copy, those of `augment`'s functions; only its own kind's are used.

  Attributes:
    kind: one of ROTATE, SKEW, SHEAR, DISTORT.
    degrees: of `augment.rotate` or `augment.shear`.
    axis: 0 where shear moves rows ("x"), 1 where it moves columns ("y").
    moves: (x, y), how far `augment.skew` moves the corners, pixels of the crop.
    offsets: (x, y), of `augment.distort`, pixels of the crop.
    flip: left to right after all else.
  """

  kind: Integer[Array, ""]
  degrees: Integer[Array, ""]
  axis: Integer[Array, ""]
  moves: Integer[Array, "4 2"]
  offsets: Integer[Array, "9 9 2"]
  flip: Bool[Array, ""]


def draw(
  key: Key[Array, ""],
  crop_size: Integer[Array, "2"],
  *,
  kind: Integer[Array, ""] | None = None,
) -> Copy:
  """Draws a copy as `augment.augment_copy` does, for a crop of a size (width, height)."""
  keys = iter(jax.random.split(key, 8))
  drawn_kind = jax.random.randint(next(keys), (), 0, len(KINDS))
  kind = drawn_kind if kind is None else kind
  most = jnp.where(kind == SHEAR, _MAX_SHEAR, _MAX_ROTATION)
  degrees = jax.random.randint(next(keys), (), 1, most + 1)
  side = jnp.where(jax.random.bernoulli(next(keys)), 1, -1)
  axis = jax.random.randint(next(keys), (), 0, 2)
  farthest = (jnp.max(crop_size) + _SKEW_PART - 1) // _SKEW_PART
  amount = jax.random.randint(next(keys), (), 1, farthest + 1)
  direction = jax.random.choice(next(keys), jnp.asarray(_SKEWS))
  inner = (_MESH - 1, _MESH - 1, 2)
  offsets = jax.random.randint(next(keys), inner, -_MAX_OFFSET, _MAX_OFFSET + 1)
  flip = jax.random.bernoulli(next(keys), FLIP_PROBABILITY)
  return Copy(kind, side * degrees, axis, amount * direction, offsets, flip)


def flow(
  copy: Copy, crop_size: Real[Array, "2"], *, size: int
) -> Float32[Array, "{size} {size} 2"]:
  """Where in the resized crop each pixel of a copy is seen, its middle.

  Args:
    copy: its parameters.
    crop_size: (width, height) of the crop before it was resized to size x size.
    size: S.

  Returns:
    (x, y) in pixels of the resized crop, between 0 and S but for rounding.
  """
  crop_size = crop_size.astype(jnp.float32)
  middles = (jnp.arange(size) + 0.5) / size
  across = jnp.where(copy.flip, 1 - middles, middles)
  x, y = jnp.meshgrid(across, middles)
  a, b, c = _matrix(copy, crop_size)
  below = c[0] * x + c[1] * y + c[2]
  places = jnp.stack([(r[0] * x + r[1] * y + r[2]) / below for r in (a, b)], axis=-1)
  return (places + _bend(copy, crop_size, across, middles)) * size


def _matrix(copy: Copy, crop_size: jax.Array) -> jax.Array:
  """The projective map [3, 3] from places in the copy to places in the crop, both in [0, 1]."""
  angle = jnp.radians(copy.degrees.astype(jnp.float32))
  maps = {
    ROTATE: _about_centre(_rotation(angle, crop_size)),
    SKEW: _perspective(copy.moves / crop_size[None]),
    SHEAR: _about_centre(_shear(angle, copy.axis, crop_size)),
    DISTORT: jnp.eye(3),
  }
  return jnp.stack([maps[kind] for kind in KINDS])[copy.kind]


def _about_centre(matrix: jax.Array) -> jax.Array:
  """place -> centre + matrix [2, 2] @ (place - centre), as [3, 3]."""
  shift = 0.5 - matrix.sum(axis=1, keepdims=True) / 2
  return jnp.concatenate([jnp.hstack([matrix, shift]), jnp.array([[0.0, 0.0, 1.0]])])


def _rotation(angle: jax.Array, crop_size: jax.Array) -> jax.Array:
  """`augment.rotate`: the turn times the inner rectangle's share of the crop, as [2, 2]."""
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  inner = _inner_rectangle(crop_size, jnp.abs(sin), cos)
  turn = jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])
  return turn * inner[None, :] / crop_size[:, None]


def _inner_rectangle(crop_size: jax.Array, sin: jax.Array, cos: jax.Array) -> jax.Array:
  """`augment.inner_rectangle`: [2] (width, height)."""
  short, long = jnp.min(crop_size), jnp.max(crop_size)
  wide = crop_size[0] >= crop_size[1]
  limited = short / (2 * jnp.where(jnp.stack([wide, ~wide]), sin, cos))
  all_touch = (crop_size * cos - crop_size[::-1] * sin) / (cos * cos - sin * sin)
  return jnp.where(short <= 2 * sin * cos * long, limited, all_touch)


def _shear(angle: jax.Array, axis: jax.Array, crop_size: jax.Array) -> jax.Array:
  """`augment.shear`: [2, 2]."""
  length, extent = crop_size[axis], crop_size[1 - axis]  # Along and across the axis.
  slope = jnp.tan(angle)
  kept_extent = jnp.minimum(extent, length / (2 * jnp.abs(slope)))
  kept_length = length - kept_extent * jnp.abs(slope)
  along, across, zero = kept_length / length, kept_extent / extent, jnp.zeros_like(slope)
  rows = [jnp.stack([along, slope * kept_extent / length]), jnp.stack([zero, across])]
  matrix = jnp.stack(rows)
  return jnp.where(axis == 0, matrix, matrix[::-1, ::-1])


def _perspective(moves: jax.Array) -> jax.Array:
  """The map [3, 3] that takes the unit square's moved corners [4, 2] back to the square.

  From the square to its moved corners p, q, r, s there is a closed form (Heckbert 1989):
  (x, y) -> (x ((1 + g) q - p) + y ((1 + h) s - p) + p) / (g x + h y + 1). The way back is its
  inverse up to scale: the adjugate, whose rows are cross products of columns.
  """
  p, q, r, s = moves + jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
  one, other, odd = q - r, s - r, p - q + r - s
  g = _cross(odd, other) / _cross(one, other)
  h = _cross(one, odd) / _cross(one, other)
  columns = [(1 + g) * q - p, (1 + h) * s - p, p]
  a, b, c = (jnp.append(column, last) for column, last in zip(columns, (g, h, 1.0)))
  return jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)])


def _cross(a: jax.Array, b: jax.Array) -> jax.Array:
  return a[0] * b[1] - a[1] * b[0]


def _bend(copy: Copy, crop_size: jax.Array, across: jax.Array, down: jax.Array) -> jax.Array:
  """What `augment.distort` adds to places of columns [S] and rows [S] in [0, 1]: [S, S, 2]."""
  columns, rows = (_mesh_nodes(length) for length in crop_size)
  nodes = jnp.stack(jnp.meshgrid(columns[1:-1], rows[1:-1]), axis=-1)
  moved = jnp.clip(nodes + copy.offsets, 0, crop_size[None, None])
  moves = jnp.where(copy.kind == DISTORT, (moved - nodes) / crop_size[None, None], 0)
  moves = jnp.pad(moves, ((1, 1), (1, 1), (0, 0)))
  row_weights = _node_weights(down * crop_size[1], rows)
  column_weights = _node_weights(across * crop_size[0], columns)
  return jnp.einsum("yr,rcd,xc->yxd", row_weights, moves, column_weights, precision="highest")


def _mesh_nodes(length: jax.Array) -> jax.Array:
  """Where the mesh's lines cross a side of so many pixels: whole numbers [11]."""
  return jnp.floor(length * jnp.arange(_MESH + 1) / _MESH)


def _node_weights(places: jax.Array, nodes: jax.Array) -> jax.Array:
  """Shares [S, 11] of the two nodes around each place; tiles without a pixel are passed over."""
  tile = jnp.sum(places[:, None] >= nodes[None, 1:-1], axis=1)
  share = (places - nodes[tile]) / (nodes[tile + 1] - nodes[tile])
  first, second = (jax.nn.one_hot(node, len(nodes)) for node in (tile, tile + 1))
  return first * (1 - share)[:, None] + second * share[:, None]


def sample(
  image: Float[Array, "S S 3"] | UInt8[Array, "S S 3"], places: Float[Array, "*n 2"]
) -> Float32[Array, "*n 3"]:
  """An image seen at places, bilinearly; what lies outside is the nearest of its border.

  Args:
    image: float of any range, or uint8.
    places: (x, y).

  Returns:
    A float image's own range; [0, 1] of a uint8 image.
  """
  height, width = image.shape[:2]
  limits = jnp.array([width - 1, height - 1]).reshape((1,) * (places.ndim - 1) + (2,))
  places = jnp.clip(places - 0.5, 0, limits)
  near = places.astype(jnp.int32)
  far = jnp.minimum(near + 1, limits)
  x, y = jnp.moveaxis(places - near, -1, 0)[..., None]
  pixels = image.reshape(-1, 3)

  def look_up(rows, columns):
    """Of several ways to gather, a flat index without a check is the fastest on a CPU."""
    index = rows[..., 1] * width + columns[..., 0]
    return pixels.at[index].get(mode="promise_in_bounds").astype(jnp.float32)

  top = look_up(near, near) * (1 - x) + look_up(near, far) * x
  bottom = look_up(far, near) * (1 - x) + look_up(far, far) * x
  seen = top * (1 - y) + bottom * y
  return seen / 255 if image.dtype == jnp.uint8 else seen


def augment(
  image: Float[Array, "S S 3"] | UInt8[Array, "S S 3"],
  crop_size: Integer[Array, "2"],
  key: Key[Array, ""],
  *,
  kind: Integer[Array, ""] | None = None,
) -> Float32[Array, "S S 3"]:
  """One copy of one crop, a function of its arguments alone.

  Args:
    image: the resized crop.
    crop_size: (width, height) of the crop before that, pixels.
    key: another for each copy.
    kind: one of KINDS; None: drawn.

  Returns:
    The copy; a uint8 image's is in [0, 1].
  """
  copy = draw(key, crop_size, kind=kind)
  return sample(image, flow(copy, crop_size, size=image.shape[0]))


class Crops(NamedTuple):
  """A training set that lies on the device, or is on its way there.

  Attributes:
    pixels: all crops, resized.
    crop_sizes: (width, height) before that, pixels.
    seed: of the copies.
  """

  pixels: UInt8[Array | np.ndarray, "M S S 3"]
  crop_sizes: Integer[Array | np.ndarray, "M 2"]
  seed: int | Integer[Array, ""]


def copies_of(
  crops: Crops, example: Integer[Array, " N"], *, copies: int
) -> Float32[Array, "N S S 3"]:
  """Augmented copies in [0, 1], the same whenever they are asked for.

  Args:
    example: `copies` of them for each crop, in order; its kind is copy % 4.
  """
  keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(crops.seed)))(example)
  kinds = example % copies % len(KINDS)
  pixels, crop_sizes = jnp.asarray(crops.pixels), jnp.asarray(crops.crop_sizes)
  return augmented_batch(pixels, crop_sizes, example // copies, keys, kinds=kinds)


def augmented_batch(
  pixels: UInt8[Array, "M S S 3"],
  crop_sizes: Integer[Array, "M 2"],
  indices: Integer[Array, " N"],
  keys: Key[Array, " N"],
  *,
  kinds: Integer[Array, " N"] | None = None,
) -> Float32[Array, "N S S 3"]:
  """Copies in [0, 1] of some crops of a set on the device: what the body of a scan needs.

  Args:
    pixels: all crops, resized.
    crop_sizes: (width, height) before that, pixels.
    indices: which crops.
    kinds: of KINDS; None: drawn.
  """

  def one(index, key, kind):
    return augment(pixels[index], crop_sizes[index], key, kind=kind)

  return jax.vmap(one)(indices, keys, kinds)
