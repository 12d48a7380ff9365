"""Stability: does a prototype show the same parts of the object after small noise on the image?

  stability(maps, maps_of_noisy_images, parts, labels, prototype_class).value

Huang et al. (ICCV 2023), Section 3; docs/metrics/stability.md. The noise is in `metrics.noise`.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int, Real

from jprotop.errors import InputError
from jprotop.metrics import checks
from jprotop.metrics.checks import Array
from jprotop.metrics.estimate import Estimate
from jprotop.metrics.maps import own, peaks
from jprotop.metrics.part_hits import HALF_SIZE, PartHits, part_hits

DEFINITIONS = (*checks.DEFINITIONS, "first_release")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Stability(Estimate):
  """The mean over prototypes of the share of their class's images on which no part changes.

  The interval is over images: of those, with their noise, the numbers are a sample.

  Attributes:
    pairs: how many pairs of an image and a prototype of its class there are.
    empty: of them, the share in which no part is hit before or after, which count as stable.
    stable_where_hit: stability over the pairs in which a part is hit before.
    by_prototype: float [P], NaN where a prototype has no image.
  """

  pairs: int
  empty: Estimate
  stable_where_hit: Estimate
  by_prototype: Float[np.ndarray, " P"] = dataclasses.field(repr=False)


def stability(
  maps: Float[Array, "N h w P"],
  noisy_maps: Float[Array, "n r c Q"],
  parts: Real[Array, "m L 3"] | None,
  labels: Int[Array, " m"],
  prototype_class: Int[Array, " p"],
  *,
  image_size: int = 224,
  half_size: float = HALF_SIZE,
  definition: str = "paper",
) -> Stability:
  """How often the parts in a prototype's box are all the same before and after noise.

  Args:
    maps, noisy_maps: similarity maps of the images, and of the same with noise.
    parts, labels, prototype_class, image_size, half_size: see `consistency`.
    definition: "paper" and "released" differ in the box, see `part_hits`; "first_release" compares
      only how many parts are hit.

  Raises:
    InputError: there are no parts, an array does not fit, or a map is not finite.
  """
  checks.same_grid(maps, noisy_maps, "noisy_maps")
  box = "paper" if definition == "paper" else "released"
  before, after = (
    part_hits(
      peaks(own(which, labels, prototype_class), image_size),
      parts,
      half_size=half_size,
      definition=box,
    )
    for which in (maps, noisy_maps)
  )
  return stability_of(before, after, len(prototype_class), definition=definition)


def stability_of(
  before: PartHits, after: PartHits, num_prototypes: int, *, definition: str = "paper"
) -> Stability:
  """The same from `part_hits` of all images and of the noisy ones, for P = num_prototypes."""
  checks.definition(definition, DEFINITIONS)
  if before.hits.shape != after.hits.shape or (before.prototypes != after.prototypes).any():
    raise InputError(
      "the hits before and after the noise are of other images or prototypes; give the same ones, "
      "in the same order"
    )
  if definition == "first_release":
    same = np.asarray(before.hits.sum(axis=2) == after.hits.sum(axis=2))
  else:
    same = np.asarray((before.hits == after.hits).all(axis=2))
  hit_before, hit_after = (np.asarray(hits.any(axis=2)) for hits in (before.hits, after.hits))
  weight = _pair_weights(before.prototypes, num_prototypes)
  image, k = np.nonzero(before.prototypes >= 0)
  by_prototype = np.full(num_prototypes, np.nan)
  by_prototype[np.unique(before.prototypes[image, k])] = 0.0
  # The weights of one prototype's pairs sum to 1.
  np.add.at(by_prototype, before.prototypes[image, k], (same * weight)[image, k])
  whole = Estimate.over_images(same, weight)
  return Stability(
    **vars(whole),
    pairs=len(image),
    empty=Estimate.over_images(~hit_before & ~hit_after, weight),
    stable_where_hit=Estimate.over_images(same, weight * hit_before),
    by_prototype=by_prototype,
  )


def _pair_weights(prototypes: np.ndarray, num_prototypes: int) -> np.ndarray:
  """Weights [N, K] of pairs: 1 / the images of that prototype; 0 where there is none."""
  there = prototypes >= 0
  checks.indices(prototypes[there], num_prototypes, "prototype")
  images = np.bincount(prototypes[there], minlength=num_prototypes)
  return there / np.maximum(images[prototypes], 1)
