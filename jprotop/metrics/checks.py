"""What arrays from outside must be: one message for each way in which they are not.

In the annotations of the metrics, axes of two arguments that must agree have the same letter only
where nothing here looks at them, so that a user gets these messages also with a type checker on.
"""

import jax
import numpy as np
from jaxtyping import Bool, Float32, Float64, Integer, Shaped

from jprotop.errors import InputError

Array = np.ndarray | jax.Array

DEFINITIONS = ("paper", "released")


def definition(given: str, known: tuple[str, ...] = DEFINITIONS) -> None:
  """InputError unless a metric has that definition."""
  if given not in known:
    raise InputError(f"definition={given!r} is not known; it must be one of {', '.join(known)}")


def maps(given: Shaped[Array, "..."], name: str = "maps") -> Float32[np.ndarray, "N h w K"]:
  """Maps as float32 on the host, all finite."""
  found = np.asarray(given, np.float32)
  if found.ndim != 4:
    raise InputError(
      f"{name} has the shape {found.shape}; it must be [N, h, w, K]: images, rows, columns, and "
      "prototypes last"
    )
  if not found.size:
    raise InputError(f"{name} has the shape {found.shape}, so it holds nothing; give images")
  if not np.isfinite(found).all():
    image, row, column, k = np.argwhere(~np.isfinite(found))[0]
    raise InputError(
      f"{name} holds {found[image, row, column, k]} in image {image}, row {row}, column {column}, "
      f"map {k}; all values must be finite, so leave that image out or mend its network"
    )
  return found


def same_grid(first: Shaped[Array, "..."], second: Shaped[Array, "..."], name: str) -> None:
  """InputError unless two arrays of maps are of the same images, grid and prototypes."""
  if np.shape(first) != np.shape(second):
    raise InputError(
      f"{name} has the shape {np.shape(second)}, but the clean maps have {np.shape(first)}; give "
      "the maps of the same images and prototypes, on the same grid"
    )


def labels(
  given: Shaped[Array, "..."], count: int, name: str = "labels"
) -> Integer[np.ndarray, " {count}"]:
  """Classes, from 0."""
  found = np.asarray(given)
  if found.shape != (count,) or not np.issubdtype(found.dtype, np.integer):
    raise InputError(
      f"{name} is {found.dtype} of the shape {found.shape}; it must be {count} integers, one each"
    )
  if (found < 0).any():
    raise InputError(f"{name} holds {found.min()}; classes are counted from 0")
  return found


def parts(given: Shaped[Array, "..."] | None, count: int) -> Float64[np.ndarray, "{count} L 3"]:
  """Part points (x, y, visible), of which some are visible."""
  if given is None:
    raise InputError(
      "the data have no part annotations, which this metric counts; use a data set with parts "
      "(CUB-200-2011, ToyBirds)"
    )
  found = np.asarray(given, np.float64)
  if found.ndim != 3 or found.shape[0] != count or found.shape[2] != 3:
    raise InputError(
      f"parts has the shape {found.shape}; it must be [{count}, L, 3]: images, parts, and x, y, "
      "visible in pixels of the image that the network sees"
    )
  seen = found[..., 2] > 0
  if not seen.any():
    raise InputError(
      "no part is visible in any of the images (the third number of each point), so the data have "
      "no part annotations; use a data set with parts"
    )
  if not np.isfinite(found[seen]).all():
    image, part = np.argwhere(seen & ~np.isfinite(found).all(axis=2))[0]
    raise InputError(
      f"parts: part {part} of image {image} is visible, but at {tuple(found[image, part, :2])}; "
      "give its place, or 0 as its third number"
    )
  return found


def masks(
  given: Shaped[Array, "..."] | None, count: int, image_size: int
) -> Bool[np.ndarray, "{count} {image_size} {image_size}"]:
  """Object masks, each of which has an object."""
  if given is None:
    raise InputError(
      "the data have no object masks, which this metric counts; use a data set with masks"
    )
  found = np.asarray(given)
  if found.shape != (count, image_size, image_size):
    raise InputError(
      f"masks has the shape {found.shape}; it must be [{count}, {image_size}, {image_size}], one "
      "mask an image, of the image that the network sees"
    )
  found = found.astype(bool, copy=False)
  empty = ~found.any(axis=(1, 2))
  if empty.any():
    raise InputError(
      f"the mask of image {int(np.flatnonzero(empty)[0])} has no pixel of an object; leave that "
      "image out"
    )
  return found


def indices(given: Integer[np.ndarray, "..."], available: int, what: str) -> None:
  """InputError unless all indices are 0 to available - 1."""
  outside = [int(i) for i in np.ravel(given) if not 0 <= i < available]
  if outside:
    raise InputError(f"{what} {outside[0]} does not exist; there are 0 to {available - 1}")


def share(given: float, name: str) -> None:
  """InputError unless a number is above 0 and at most 1."""
  if not 0 < given <= 1:
    raise InputError(f"{name}={given} must be above 0 and at most 1")
