"""Comprehensiveness: do the prototypes that explain an image together cover the object?

  comprehensiveness(maps, masks, labels, prototype_class).value
  rows = [comprehensiveness_rows(own(batch, ...), masks) ...]; comprehensiveness_of(merge(rows))

Zhu et al. (CVPR 2025), and its released code, proto-non-param; docs/metrics/comprehensiveness.md.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from jprotop.metrics import checks
from jprotop.metrics.checks import Array
from jprotop.metrics.distinctiveness_score import NUM_PROTOTYPES
from jprotop.metrics.estimate import Estimate
from jprotop.metrics.maps import Chosen, own, per_map, strongest_own

THRESHOLD = 0.6


def comprehensiveness(
  maps: Float[Array, "N h w P"],
  masks: Bool[Array, "n H W"] | None,
  labels: Int[Array, " n"],
  prototype_class: Int[Array, " p"],
  *,
  threshold: float = THRESHOLD,
  num_prototypes: int = NUM_PROTOTYPES,
  image_size: int = 224,
  definition: str = "paper",
) -> Estimate:
  """The overlap (IoU) of the object with where its own prototypes' maps are high.

  Args:
    maps: similarity maps.
    masks: where the object is, in the image that the network sees.
    labels, prototype_class: classes of images and prototypes.
    threshold: a pixel belongs to a prototype where its map, scaled from 0 to 1, is at least this.
    num_prototypes: how many of the own class, the most activated ones; all where there are fewer.
    image_size: S, the side of the image.
    definition: they differ by 1e-6 in the released denominator alone.

  Raises:
    InputError: there are no masks, an array does not fit, or a map is not finite.
  """
  rows = comprehensiveness_rows(
    own(maps, labels, prototype_class), masks,
    threshold=threshold, num_prototypes=num_prototypes,
    image_size=image_size, definition=definition,
  )  # fmt: skip
  return comprehensiveness_of(rows)


def comprehensiveness_rows(
  chosen: Chosen,
  masks: Bool[Array, "n H W"] | None,
  *,
  threshold: float = THRESHOLD,
  num_prototypes: int = NUM_PROTOTYPES,
  image_size: int = 224,
  definition: str = "paper",
) -> Float[np.ndarray, " N"]:
  """The score of each image; NaN of one whose class has no prototype."""
  checks.definition(definition)
  checks.share(threshold, "threshold")
  best = strongest_own(chosen, num_prototypes)
  maps = np.asarray(best.maps)
  objects = checks.masks(masks, len(maps), image_size)
  there = best.prototypes >= 0
  # One prototype of each image at a time: their union is all that is kept.
  covered = np.zeros(objects.shape, bool)
  for k in range(maps.shape[3]):
    high = per_map(
      lambda up, _: _scaled(up) >= threshold, maps[..., k : k + 1], image_size, kernel="bilinear"
    )
    covered |= high[:, 0] & there[:, k, None, None]
  shared = (covered & objects).sum(axis=(1, 2))
  either = (covered | objects).sum(axis=(1, 2))
  score = shared / (either + (1e-6 if definition == "released" else 0))
  return np.where(there.any(axis=1), score, np.nan)


def comprehensiveness_of(rows: Float[np.ndarray, " N"]) -> Estimate:
  """The same from the rows of all images."""
  return Estimate.of_mean(rows, "image")


def _scaled(up: np.ndarray) -> np.ndarray:
  """Each of maps [m, S, S] from 0 to 1; a constant one, which shows nothing, is 0."""
  low, high = up.min(axis=(1, 2), keepdims=True), up.max(axis=(1, 2), keepdims=True)
  return np.divide(up - low, high - low, out=np.zeros_like(up), where=high > low)
