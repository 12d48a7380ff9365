"""Consistency: does a prototype show the same part of the object on every image of its class?

  consistency(maps, parts, labels, prototype_class).value
  rows = [part_hits(peaks(own(batch, ...)), ...) for batch ...]; consistency_of(merge(rows), P)

Huang et al. (ICCV 2023), Section 3; docs/metrics/consistency.md.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from jprotop.metrics import checks
from jprotop.metrics.checks import Array
from jprotop.metrics.estimate import Estimate
from jprotop.metrics.maps import own, peaks
from jprotop.metrics.part_hits import HALF_SIZE, PartHits, count_by_prototype, part_hits

THRESHOLD = 0.8
THRESHOLDS = tuple(step / 20 for step in range(1, 21))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Consistency(Estimate):
  """The share of consistent prototypes, of those of whose class there are images.

  Attributes:
    part_share: float [P, L], of the images on which part l is visible, the share on which it lies
      in the prototype's box; NaN where there is none.
    consistent: bool [P].
  """

  part_share: Float[np.ndarray, "P L"] = dataclasses.field(repr=False)
  consistent: Bool[np.ndarray, " P"] = dataclasses.field(repr=False)


def consistency(
  maps: Float[Array, "N h w P"],
  parts: Real[Array, "n L 3"] | None,
  labels: Int[Array, " n"],
  prototype_class: Int[Array, " p"],
  *,
  image_size: int = 224,
  half_size: float = HALF_SIZE,
  threshold: float = THRESHOLD,
  definition: str = "paper",
) -> Consistency:
  """The share of prototypes that hit one part on at least `threshold` of their class's images.

  Args:
    maps: similarity maps; the higher, the more alike.
    parts: (x, y, visible) in pixels of the image that the network sees.
    labels, prototype_class: classes of images and prototypes.
    image_size: S, the side of that image.
    half_size: half of the box's side, as a share of the image's.
    definition: see `part_hits`.

  Raises:
    InputError: there are no parts, an array does not fit, or a map is not finite.
  """
  found = peaks(own(maps, labels, prototype_class), image_size)
  hits = part_hits(found, parts, half_size=half_size, definition=definition)
  return consistency_of(hits, len(prototype_class), threshold=threshold)


def consistency_of(
  hits: PartHits, num_prototypes: int, *, threshold: float = THRESHOLD
) -> Consistency:
  """The same from `part_hits` of all images, for P = num_prototypes."""
  checks.share(threshold, "threshold")
  hit, seen = count_by_prototype(hits, num_prototypes)
  part_share = np.divide(hit, seen, out=np.full(hit.shape, np.nan), where=seen > 0)
  consistent = np.asarray((np.nan_to_num(part_share) >= threshold).any(axis=1))
  has_images = np.isin(np.arange(num_prototypes), hits.prototypes)
  return Consistency.of_share(
    consistent[has_images], "prototype", part_share=part_share, consistent=consistent
  )


def consistency_curve(
  hits: PartHits, num_prototypes: int, thresholds: Sequence[float] = THRESHOLDS
) -> list[Consistency]:
  """Consistency at each threshold: one number of it depends on where the threshold was put."""
  return [consistency_of(hits, num_prototypes, threshold=t) for t in thresholds]
