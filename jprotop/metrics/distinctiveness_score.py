"""Distinctiveness: do the prototypes that explain an image look at different places?

  distinctiveness(maps, labels, prototype_class).value
  rows = [distinctiveness_rows(own(batch, ...)) for batch ...]; distinctiveness_of(merge(rows))

Zhu et al., "Interpretable Image Classification via Non-parametric Part Prototype Learning" (CVPR
2025), and its released code, proto-non-param; docs/metrics/distinctiveness.md.
"""

import numpy as np
from jaxtyping import Float, Int

from jprotop.metrics import checks
from jprotop.metrics.checks import Array
from jprotop.metrics.estimate import Estimate
from jprotop.metrics.maps import Chosen, Peaks, own, peaks, strongest_own

# The box's side as a share of the image's: 72 pixels of 224.
BOX_SIZE = 72 / 224
NUM_PROTOTYPES = 5


def distinctiveness(
  maps: Float[Array, "N h w P"],
  labels: Int[Array, " n"],
  prototype_class: Int[Array, " p"],
  *,
  box_size: float = BOX_SIZE,
  num_prototypes: int = NUM_PROTOTYPES,
  image_size: int = 224,
  definition: str = "paper",
) -> Estimate:
  """1 - the mean overlap (IoU) of the boxes of an image's strongest own prototypes.

  Args:
    maps: similarity maps.
    labels, prototype_class: classes of images and prototypes.
    box_size: the box's side, as a share of the image's.
    num_prototypes: how many of the own class, the most activated ones; all where there are fewer.
    image_size: S, the side of the image.
    definition: "paper": boxes are cut off at the image's border; "released": they are not.

  Raises:
    InputError: an array does not fit, or a map is not finite.
  """
  chosen = own(maps, labels, prototype_class)
  return distinctiveness_of(
    distinctiveness_rows(
      chosen, box_size=box_size, num_prototypes=num_prototypes,
      image_size=image_size, definition=definition,
    )
  )  # fmt: skip


def distinctiveness_rows(
  chosen: Chosen,
  *,
  box_size: float = BOX_SIZE,
  num_prototypes: int = NUM_PROTOTYPES,
  image_size: int = 224,
  definition: str = "paper",
) -> Float[np.ndarray, " N"]:
  """The score of each image; NaN of one with less than two prototypes, which have no pair."""
  checks.definition(definition)
  checks.share(box_size, "box_size")
  best = strongest_own(chosen, num_prototypes)
  found = peaks(best, image_size, kernel="bilinear")
  return _scores(found, box_size * image_size, clip=definition == "paper")


def distinctiveness_of(rows: Float[np.ndarray, " N"]) -> Estimate:
  """The same from the rows of all images."""
  return Estimate.of_mean(rows, "image")


def _scores(found: Peaks, side: float, *, clip: bool) -> np.ndarray:
  centre = found.place.astype(np.float64)
  low, high = centre - side / 2, centre + side / 2
  if clip:
    low, high = np.maximum(low, 0), np.minimum(high, found.image_size)
  area = (high - low).prod(axis=2)
  first, second = np.triu_indices(centre.shape[1], k=1)
  width = np.minimum(high[:, first], high[:, second]) - np.maximum(low[:, first], low[:, second])
  shared = np.maximum(width, 0).prod(axis=2)
  iou = shared / (area[:, first] + area[:, second] - shared)
  there = found.prototypes >= 0
  pair = there[:, first] & there[:, second]
  count = pair.sum(axis=1)
  mean = np.divide((iou * pair).sum(axis=1), count, out=np.full(len(iou), np.nan), where=count > 0)
  return 1 - mean
