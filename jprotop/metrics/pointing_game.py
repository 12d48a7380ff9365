"""The pointing game: is what a prototype's map marks on the object, or on the background?

  pointing_game_energy(maps, masks, labels, prototype_class).value
  rows = [energy_rows(own(batch, ...), masks) for batch ...]; pointing_game_of(merge(rows))

By energy (Wang et al., "Score-CAM", CVPRW 2020) and by mask, as in CaBRNet's evaluation of what
prototypes show; docs/metrics/pointing_game.md.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from jprotop.metrics import checks
from jprotop.metrics.checks import Array
from jprotop.metrics.estimate import Estimate
from jprotop.metrics.maps import Chosen, own, per_map, sums

AREA = 0.1


def pointing_game_energy(
  maps: Float[Array, "N h w P"],
  masks: Bool[Array, "n H W"] | None,
  labels: Int[Array, " n"],
  prototype_class: Int[Array, " p"],
  *,
  image_size: int = 224,
  definition: str = "paper",
) -> Estimate:
  """The share of a map's positive sum that lies on the object; a mean over own prototypes.

  Args:
    maps: similarity maps.
    masks: where the object is, in the image that the network sees.
    labels, prototype_class: classes of images and prototypes.
    image_size: S, the side of the image.
    definition: "paper": the whole map, its positive part; "released": CaBRNet puts 1 at the
      map's maximum and 0 elsewhere before it is upsampled, and lets the negative values of the
      cubic kernel count, so that a share can exceed 1.

  Raises:
    InputError: there are no masks, an array does not fit, or a map is not finite.
  """
  chosen = own(maps, labels, prototype_class)
  return pointing_game_of(
    energy_rows(chosen, masks, image_size=image_size, definition=definition), chosen.prototypes
  )


def pointing_game_mask(
  maps: Float[Array, "N h w P"],
  masks: Bool[Array, "n H W"] | None,
  labels: Int[Array, " n"],
  prototype_class: Int[Array, " p"],
  *,
  area: float = AREA,
  image_size: int = 224,
  definition: str = "paper",
) -> Estimate:
  """The share of the strongest pixels that lie on the object; a mean over own prototypes.

  Args:
    maps, masks, labels, prototype_class, image_size: see `pointing_game_energy`.
    area: how many pixels, as a share of the image.
    definition: "paper": so many pixels of the whole map, and equals of the weakest of them count
      in part; "released": those above the weakest, of the maximum alone, as for the energy.

  Raises:
    InputError: there are no masks, an array does not fit, or a map is not finite.
  """
  chosen = own(maps, labels, prototype_class)
  rows = mask_rows(chosen, masks, area=area, image_size=image_size, definition=definition)
  return pointing_game_of(rows, chosen.prototypes)


def energy_rows(
  chosen: Chosen,
  masks: Bool[Array, "n H W"] | None,
  *,
  image_size: int = 224,
  definition: str = "paper",
) -> Float[np.ndarray, "N K"]:
  """The energy inside the mask of each image and prototype."""
  checks.definition(definition)
  released = definition == "released"

  def energy(up, objects):
    return energy_inside(up, objects, signed=released)

  return _rows(energy, chosen, masks, image_size, peak_only=released)


def mask_rows(
  chosen: Chosen,
  masks: Bool[Array, "n H W"] | None,
  *,
  area: float = AREA,
  image_size: int = 224,
  definition: str = "paper",
) -> Float[np.ndarray, "N K"]:
  """The share of the strongest pixels inside the mask, of each image and prototype."""
  checks.definition(definition)
  checks.share(area, "area")
  released = definition == "released"
  share = strictly_above_inside if released else strongest_inside
  return _rows(
    lambda up, objects: share(up, objects, area), chosen, masks, image_size, peak_only=released
  )


def pointing_game_of(
  rows: Float[np.ndarray, "N K"], prototypes: Int[np.ndarray, "N K"] | None = None
) -> Estimate:
  """The same from the rows of all images.

  Args:
    prototypes: which prototype each number is of; -1: of none, and it does not count.
  """
  there = np.ones(rows.shape, bool) if prototypes is None else prototypes >= 0
  return Estimate.over_images(rows, there)


def energy_inside(
  attribution: Float[np.ndarray, "m H W"], objects: Bool[np.ndarray, "m H W"], *, signed: bool
) -> Float[np.ndarray, " m"]:
  """The share of each attribution's sum that is inside its mask; 0 where the sum is 0.

  Args:
    signed: whether negative values count, which may make it less than 0 or more than 1.
  """
  values = attribution if signed else np.maximum(attribution, 0)
  total = values.sum(axis=(1, 2), dtype=np.float64)
  return np.divide(sums(values, objects), total, out=np.zeros(len(total)), where=total != 0)


def strongest_inside(
  attribution: Float[np.ndarray, "m H W"], objects: Bool[np.ndarray, "m H W"], area: float
) -> Float[np.ndarray, " m"]:
  """The share of the `area` strongest pixels that is inside its mask.

  Of pixels that equal the weakest of them, of which not all belong to the area, each counts with
  the share that does.
  """
  flat, inside = attribution.reshape(len(attribution), -1), objects.reshape(len(objects), -1)
  size = flat.shape[1]
  wanted = max(1, round(area * size))
  weakest = np.partition(flat, size - wanted, axis=1)[:, size - wanted, None]
  above, equal = flat > weakest, flat == weakest
  left = wanted - above.sum(axis=1)
  among_equals = (equal & inside).sum(axis=1) / equal.sum(axis=1)
  return ((above & inside).sum(axis=1) + left * among_equals) / wanted


def strictly_above_inside(
  attribution: Float[np.ndarray, "m H W"], objects: Bool[np.ndarray, "m H W"], area: float
) -> Float[np.ndarray, " m"]:
  """CaBRNet's: of the pixels above element int(n (1 - area)) in ascending order; 0 of none."""
  flat, inside = attribution.reshape(len(attribution), -1), objects.reshape(len(objects), -1)
  place = min(int(flat.shape[1] * (1 - area)), flat.shape[1] - 1)
  above = flat > np.partition(flat, place, axis=1)[:, place, None]
  count = above.sum(axis=1)
  shared = (above & inside).sum(axis=1)
  return np.divide(shared, count, out=np.zeros(len(flat)), where=count > 0)


def _rows(function, chosen: Chosen, masks, image_size: int, *, peak_only: bool) -> np.ndarray:
  """function(upsampled maps, their masks) of all maps of N images, [N, K]."""
  maps = checks.maps(chosen.maps)
  objects = checks.masks(masks, len(maps), image_size)
  if peak_only:
    maps = _only_peaks(maps)
  return per_map(lambda up, image: function(up, objects[image]), maps, image_size)


def _only_peaks(maps: np.ndarray) -> np.ndarray:
  """Maps [N, h, w, K] that are 1 at the first of their highest cells, and 0 elsewhere."""
  count, height, width, k = maps.shape
  only = np.zeros((count, height * width, k), np.float32)
  highest = maps.reshape(count, -1, k).argmax(axis=1)
  np.put_along_axis(only, highest[:, None], 1, axis=1)
  return only.reshape(maps.shape)
