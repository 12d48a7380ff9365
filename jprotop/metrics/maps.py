"""Which maps a metric reads, and how: of each image's own prototypes, upsampled to its pixels.

Metrics read few of a network's maps. `own` takes those of the prototypes of an image's class, and
`strongest` those of its most activated ones; both give `Chosen`. Each of their metrics takes them a
batch at a time, and gives rows, one an image, which `merge` joins.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Real, Shaped

from jprotop import regions
from jprotop.errors import InputError
from jprotop.metrics import checks
from jprotop.metrics.checks import Array

Rows = TypeVar("Rows")

# Bytes of upsampled maps at once, so that they stay in a processor's cache.
_AT_ONCE = 1 << 22


class Chosen(NamedTuple):
  """Maps of some prototypes of each image.

  Attributes:
    maps: as they are, not upsampled.
    prototypes: which they are of; -1: of none, where a class has fewer than K.
  """

  maps: Float[Array, "N h w K"]
  prototypes: Int[np.ndarray, "N K"]


def own_prototypes(prototype_class: Int[np.ndarray, " P"]) -> Int[np.ndarray, "C K"]:
  """The prototypes of each class, filled up with -1 where a class has fewer than K."""
  counts = np.bincount(prototype_class)
  order = np.argsort(prototype_class, kind="stable")
  table = np.full((len(counts), counts.max()), -1)
  # Within its class, the number of each prototype in `order`.
  place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
  table[prototype_class[order], place] = order
  return table


def own(
  maps: Float[Array, "N h w P"], labels: Int[Array, " N"], prototype_class: Int[Array, " P"]
) -> Chosen:
  """The maps of the prototypes of each image's own class.

  Raises:
    InputError: shapes do not fit, or no image is of a class with prototypes.
  """
  if np.ndim(maps) != 4:
    checks.maps(maps)  # It says what is wrong.
  labels = checks.labels(labels, np.shape(maps)[0])
  classes = checks.labels(prototype_class, np.shape(maps)[-1], "prototype_class")
  prototypes = own_of(labels, own_prototypes(classes))
  if (prototypes < 0).all():
    raise InputError(
      f"no image is of a class that has prototypes (labels {labels.min()} to {labels.max()}, "
      f"prototype_class {classes.min()} to {classes.max()}); number both alike"
    )
  return take(maps, prototypes)


def own_of(labels: Int[np.ndarray, " N"], table: Int[np.ndarray, "C K"]) -> Int[np.ndarray, "N K"]:
  """The prototypes of each image's class, from `own_prototypes`; -1 where it has less than K."""
  known = labels < len(table)
  return np.where(known[:, None], table[np.where(known, labels, 0)], -1)


def take(maps: Float[Array, "N h w P"], prototypes: Int[np.ndarray, "N K"]) -> Chosen:
  """The maps of some prototypes of each image, on the device where the maps are on one; -1 has
  one of which nothing is said."""
  place = np.maximum(prototypes, 0)[:, None, None, :]
  if isinstance(maps, jax.Array):
    return Chosen(jnp.take_along_axis(maps, jnp.asarray(place), axis=3), prototypes)
  return Chosen(np.take_along_axis(np.asarray(maps), place, axis=3), prototypes)


def strongest(maps: Float[Array, "N h w P"], k: int) -> Chosen:
  """The maps of each image's k prototypes of highest maximum, the highest first; of equals the
  first. All of them where there are fewer."""
  checked = checks.maps(maps)
  order = np.argsort(-checked.max(axis=(1, 2)), axis=1, kind="stable")[:, :k]
  return take(checked, order)


def strongest_own(chosen: Chosen, k: int) -> Chosen:
  """The k maps of highest maximum among those that were chosen; -1 stays last."""
  maps = checks.maps(chosen.maps)
  height = np.where(chosen.prototypes < 0, -np.inf, maps.max(axis=(1, 2)))
  order = np.argsort(-height, axis=1, kind="stable")[:, :k]
  return Chosen(
    take(maps, order).maps, np.take_along_axis(np.asarray(chosen.prototypes), order, axis=1)
  )


def per_map(
  function: Callable[
    [Float[np.ndarray, "m S S"], Int[np.ndarray, " m"]], Shaped[np.ndarray, "m ..."]
  ],
  maps: Float[np.ndarray, "N h w K"],
  image_size: int,
  *,
  kernel: str = "cubic",
) -> Shaped[np.ndarray, "N K ..."]:
  """What a function says of each map upsampled to pixels.

  Args:
    function: of upsampled maps and the image of each.
    image_size: S.
    kernel: of `regions.upsample`.
  """
  count, height, width, k = maps.shape
  flat = np.moveaxis(maps, -1, 1).reshape(-1, height, width)
  image, step = np.repeat(np.arange(count), k), max(1, _AT_ONCE // (4 * image_size**2))
  found = [
    function(
      regions.upsample(flat[start : start + step], image_size, image_size, kernel),
      image[start : start + step],
    )
    for start in range(0, len(flat), step)
  ]
  found = np.concatenate(found)
  return found.reshape(count, k, *found.shape[1:])


def quantiles(up: Float[np.ndarray, "m H W"], share: float) -> Float[np.ndarray, "m 1 1"]:
  """A quantile of each of maps, by linear interpolation.

  What np.quantile gives, at less than half its time.
  """
  flat = up.reshape(len(up), -1)
  place = share * (flat.shape[1] - 1)
  below = min(int(place), flat.shape[1] - 2)
  ordered = np.partition(flat, below, axis=1)
  low, high = ordered[:, below], ordered[:, below + 1 :].min(axis=1)
  return (low + up.dtype.type(place - below) * (high - low))[:, None, None]


def sums(
  values: Real[np.ndarray, "m H W"], where: Bool[np.ndarray, "m H W"]
) -> Float64[np.ndarray, " m"]:
  """Sum of each map over its booleans."""
  flat, chosen = values.reshape(len(values), -1), where.reshape(len(where), -1)
  return np.einsum("mp,mp->m", flat, chosen, dtype=np.float64)


class Peaks(NamedTuple):
  """Where upsampled maps are highest: a row an image.

  Attributes:
    place: int16 [N, K, 2], the pixel (row, column); of equals the first in row-major order.
    prototypes: int [N, K]; -1: of none.
    image_size: S, of what the pixels are.
  """

  place: Int[np.ndarray, "N K 2"]
  prototypes: Int[np.ndarray, "N K"]
  image_size: int


def peaks(chosen: Chosen, image_size: int = 224, *, kernel: str = "cubic") -> Peaks:
  """Where maps are highest in an image of `image_size` pixels.

  Raises:
    InputError: a map is not finite.
  """
  maps = checks.maps(chosen.maps)
  place = per_map(
    lambda up, _: up.reshape(len(up), -1).argmax(axis=1), maps, image_size, kernel=kernel
  )
  pixel = np.stack([place // image_size, place % image_size], axis=-1)
  return Peaks(pixel.astype(np.int16), np.asarray(chosen.prototypes), image_size)


def merge(rows: Sequence[Rows]) -> Rows:
  """Rows of several batches as those of all their images, in order.

  Args:
    rows: arrays [n, ...], or the rows of a metric, which hold such arrays, and what is the same in
      all of them.
  """
  if not rows:
    raise InputError("there are no rows to merge; give those of one batch at least")
  return _joined(rows)


def _joined(rows: Sequence[Any]) -> Any:
  if isinstance(rows[0], np.ndarray):
    return np.concatenate(rows)
  joined = []
  for name, column in zip(rows[0]._fields, zip(*rows)):
    if isinstance(column[0], np.ndarray):
      joined.append(np.concatenate(column))
    elif all(value == column[0] for value in column):
      joined.append(column[0])
    else:
      raise InputError(
        f"batches of another {name} ({column[0]} and others) cannot be merged; read all alike"
      )
  return type(rows[0])(*joined)
