"""ProtoPNet's offline augmentation, drawn on the fly from (seed, image, copy).

The reference enlarges the training set with Augmentor before training: for every crop ten copies
each are rotated, skewed, sheared and distorted, then perhaps flipped. Here a copy is made when it
is needed, on the crop at its native resolution. Geometry and limits are the reference's; what
differs, on purpose:

- Rotation and shear resample once, straight from the picture to the result. The reference
  resamples twice (turn, crop whole pixels, enlarge again).
- Rotation keeps the largest rectangle without border. The reference's formula keeps another, mostly
  smaller one (300 x 250 px at 15 degrees: 235 x 161, not 260 x 189), a sliver or nothing near 4:1.
- Every drawn angle changes the picture: the reference draws 0 degrees in 1 of 16 rotations, and
  shears by -9..11 degrees.
- Nothing is saved as JPEG in between (the reference: quality 75), which would confound Section 4.

Pixel coordinates are continuous: pixel i covers [i, i + 1), x runs right, y down. Every transform
takes and returns an image of the same size, shows no border, and accepts any size from 1 x 1.
"""

import math

import numpy as np
from jaxtyping import Float, Float64, Real
from PIL import Image

from jprotop.errors import InputError

# Augmentor rounds its coin u to one decimal and flips if round(u, 1) <= 0.5: whenever u < 0.55.
FLIP_PROBABILITY = 0.55

_BICUBIC = Image.Resampling.BICUBIC


# --- The four transforms, with explicit parameters.


def inner_rectangle(width: float, height: float, degrees: float) -> tuple[float, float]:
  """Width and height of the largest upright rectangle in a picture turned by |degrees| < 45.

  With c, s = cos, sin: ((w c - h s), (h c - w s)) / (c^2 - s^2) touches all four sides. A picture
  longer than 1 / sin(2 a) times its other side has no such rectangle: its short side m alone
  limits, and two corners lie on the long sides: (m / 2s) along the picture, (m / 2c) across.
  """
  angle = math.radians(abs(degrees))
  cos, sin = math.cos(angle), math.sin(angle)
  short, long = min(width, height), max(width, height)
  if short <= 2 * sin * cos * long:
    along, across = short / (2 * sin), short / (2 * cos)
    return (along, across) if width >= height else (across, along)
  scale = cos * cos - sin * sin
  return (width * cos - height * sin) / scale, (height * cos - width * sin) / scale


def rotate(image: Image.Image, degrees: float) -> Image.Image:
  """Turns counter-clockwise by |degrees| < 45, keeps the inner rectangle, enlarges it again."""
  if not abs(degrees) < 45:
    raise InputError(f"degrees={degrees} must lie between -45 and 45")
  width, height = image.size
  inner_width, inner_height = inner_rectangle(width, height, degrees)
  cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
  turn = np.array([[cos, -sin], [sin, cos]])
  return _affine(image, turn * (inner_width / width, inner_height / height))


def shear(image: Image.Image, degrees: float, axis: str) -> Image.Image:
  """Moves rows ("x") or columns ("y") in proportion to their place, by tan(degrees) px a px.

  Positive angles move the bottom rows left or the right columns up. The parallelogram's largest
  upright rectangle is enlarged to the size of the image: the whole height and w - h tan wide, as
  in the reference; if that is under w / 2, then w / 2 wide and as high as fits.
  """
  if axis not in ("x", "y"):
    raise InputError(f"axis={axis!r} must be 'x' (rows move) or 'y' (columns move)")
  if not abs(degrees) < 90:
    raise InputError(f"degrees={degrees} must lie between -90 and 90")
  length, extent = image.size if axis == "x" else image.size[::-1]  # Along and across the axis.
  slope = math.tan(math.radians(degrees))
  kept_extent = min(extent, length / (2 * abs(slope))) if slope else extent
  kept_length = length - kept_extent * abs(slope)
  scale_length, scale_extent = kept_length / length, kept_extent / extent
  matrix = np.array([[scale_length, slope * scale_extent], [0, scale_extent]])
  return _affine(image, matrix if axis == "x" else matrix[::-1, ::-1])


def _affine(image: Image.Image, matrix: Float[np.ndarray, "2 2"]) -> Image.Image:
  """Samples the image at centre + matrix @ (place in the result - centre), bicubic."""
  centre = np.array(image.size) / 2
  coefficients = np.column_stack([matrix, centre - matrix @ centre])
  return image.transform(
    image.size, Image.Transform.AFFINE, coefficients.ravel().tolist(), _BICUBIC
  )


def image_corners(image: Image.Image) -> Float64[np.ndarray, "4 2"]:
  """(x, y): top left, top right, bottom right, bottom left."""
  width, height = image.size
  return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)


def skew(image: Image.Image, corners: Real[np.ndarray, "4 2"]) -> Image.Image:
  """Perspective: the image's corners move to `corners` (x, y), ordered as image_corners.

  What lies beyond the frame is lost; corners must not move inwards, or black border shows.
  """
  coefficients = perspective(np.asarray(corners, np.float64), image_corners(image))
  return image.transform(image.size, Image.Transform.PERSPECTIVE, coefficients.tolist(), _BICUBIC)


def perspective(
  source: Float[np.ndarray, "4 2"], target: Float[np.ndarray, "4 2"]
) -> Float[np.ndarray, "8"]:
  """The coefficients (a, ..., h) that take four points `source` to `target`.

  u = (a x + b y + c) / (g x + h y + 1), v = (d x + e y + f) / (g x + h y + 1). Times the
  denominator, each pair of points gives two equations linear in the coefficients.
  """
  x, y = source.T
  u, v = target.T
  one, zero = np.ones(4), np.zeros(4)
  across = np.stack([x, y, one, zero, zero, zero, -u * x, -u * y], axis=1)
  down = np.stack([zero, zero, zero, x, y, one, -v * x, -v * y], axis=1)
  return np.linalg.solve(np.concatenate([across, down]), np.concatenate([u, v]))


def distort(image: Image.Image, offsets: Real[np.ndarray, "..."]) -> Image.Image:
  """Bends the image on a mesh of rows x columns tiles whose inner nodes look elsewhere.

  The result shows at each inner node what the image has `offsets` pixels away, and in between what
  lies bilinearly in between. Places outside the image are moved to its border.

  Args:
    image: of any size; a mesh finer than the pixels loses its empty tiles.
    offsets: [rows - 1, columns - 1, 2] (x, y), pixels.
  """
  offsets = np.asarray(offsets, np.float64)
  if offsets.ndim != 3 or offsets.shape[2] != 2:
    raise InputError(f"offsets of shape {offsets.shape}, must be [rows - 1, columns - 1, 2]")
  width, height = image.size
  rows, columns = offsets.shape[0] + 1, offsets.shape[1] + 1
  xs = [width * column // columns for column in range(columns + 1)]
  ys = [height * row // rows for row in range(rows + 1)]
  nodes = np.stack(np.meshgrid(xs, ys), axis=-1).astype(np.float64)
  # Pillow fills what is sampled at the far border itself, so stay a thousandth of a pixel inside.
  moved = nodes[1:-1, 1:-1] + offsets
  nodes[1:-1, 1:-1] = np.clip(moved, 0, np.array(image.size) - 1e-3)
  # Pillow's order of corners: top left, bottom left, bottom right, top right.
  quads = np.stack([nodes[:-1, :-1], nodes[1:, :-1], nodes[1:, 1:], nodes[:-1, 1:]], axis=2)
  quads = quads.reshape(rows, columns, 8).tolist()
  mesh = [
    ((xs[column], ys[row], xs[column + 1], ys[row + 1]), quads[row][column])
    for row in range(rows)
    for column in range(columns)
    if xs[column] < xs[column + 1] and ys[row] < ys[row + 1]
  ]
  return image.transform(image.size, Image.Transform.MESH, mesh, _BICUBIC)


# --- Their parameters, drawn as the reference draws them.


def random_rotate(
  image: Image.Image, rng: np.random.Generator, *, max_degrees: int = 15
) -> Image.Image:
  """`rotate` by 1..max_degrees whole degrees, to a side chosen by coin."""
  return rotate(image, _signed(rng, max_degrees))


def random_shear(
  image: Image.Image, rng: np.random.Generator, *, max_degrees: int = 10
) -> Image.Image:
  """`shear` by 1..max_degrees whole degrees, its sign and its axis chosen by coin."""
  return shear(image, _signed(rng, max_degrees), "xy"[rng.integers(2)])


def random_skew(
  image: Image.Image, rng: np.random.Generator, *, magnitude: float = 0.2
) -> Image.Image:
  """`skew` outwards by 1..ceil(magnitude * longer side) pixels, in one of four equal ways.

  A tilt (one of the four sides lengthens at both ends), a tilt to left or right, a tilt to top or
  bottom, or one corner alone, along x or y.
  """
  limit = max(1, math.ceil(magnitude * max(image.size)))
  amount = rng.integers(1, limit, endpoint=True)
  kind = rng.integers(4)
  if kind == 3:
    directions = _CORNER_SKEWS[rng.integers(len(_CORNER_SKEWS))]
  else:
    sides = (("left", "right", "top", "bottom"), ("left", "right"), ("top", "bottom"))[kind]
    directions = _TILTS[sides[rng.integers(len(sides))]]
  return skew(image, image_corners(image) + amount * directions)


def random_distort(
  image: Image.Image, rng: np.random.Generator, *, mesh: int = 10, max_offset: int = 5
) -> Image.Image:
  """`distort` on mesh x mesh tiles, each inner node by up to max_offset whole pixels in x and y."""
  shape = (mesh - 1, mesh - 1, 2)
  return distort(image, rng.integers(-max_offset, max_offset, shape, endpoint=True))


def _signed(rng: np.random.Generator, limit: int) -> int:
  """A whole number from 1 to limit, its sign by coin."""
  return int(rng.integers(1, limit, endpoint=True)) * (1 if rng.integers(2) else -1)


# Which way the corners (ordered as image_corners) move: always along a side, outwards.
_OUTWARDS = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
_TILTS = {
  "left": _OUTWARDS * [[0, 1], [0, 0], [0, 0], [0, 1]],
  "right": _OUTWARDS * [[0, 0], [0, 1], [0, 1], [0, 0]],
  "top": _OUTWARDS * [[1, 0], [1, 0], [0, 0], [0, 0]],
  "bottom": _OUTWARDS * [[0, 0], [0, 0], [1, 0], [1, 0]],
}
_CORNER_SKEWS = _OUTWARDS * np.eye(8, dtype=int).reshape(8, 4, 2)

TRANSFORMS = (random_rotate, random_skew, random_shear, random_distort)


# --- One copy.


def augment_copy(image: Image.Image, *, seed: int, index: int, copy: int) -> Image.Image:
  """Augmented copy number `copy` (from 0) of the training image number `index`.

  A function of (seed, index, copy) and the pixels alone. copy % 4 picks the transform, so that of
  40 copies exactly ten are rotated, ten skewed, ten sheared and ten distorted; then comes a flip
  with FLIP_PROBABILITY.
  """
  if image.mode not in ("RGB", "L"):  # Pillow would silently not interpolate palettes.
    raise InputError(f"image of mode {image.mode}, must be RGB (or L); decode() gives that")
  rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index, copy)))
  image = TRANSFORMS[copy % len(TRANSFORMS)](image, rng)
  flip = rng.random() < FLIP_PROBABILITY
  return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image
