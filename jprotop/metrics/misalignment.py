"""Spatial misalignment: how noise outside of a prototype's box changes what it says of the image.

  misalignment(maps, attacked_maps, labels, prototype_class).pac.value
  rows = [misalignment_rows(batch, attacked_batch, ...) ...]; misalignment_of(merge(rows))

Sacha et al., "Interpretability Benchmark for Evaluating Spatial Misalignment of Prototypical Parts
Explanations" (AAAI 2024), and its released code; docs/metrics/misalignment.md. These are its scores
alone: they take what a network says before and after any attack. Fractions, not percentages.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jprotop import regions
from jprotop.errors import InputError
from jprotop.metrics import checks
from jprotop.metrics.checks import Array
from jprotop.metrics.estimate import Estimate
from jprotop.metrics.maps import Chosen, own, per_map, quantiles, strongest

PROTECTED = 0.95
MARGIN = 10 / 224
LOCATION = 0.9
ATTACKED = ("top_proto", "gt_protos")


class MisalignmentRows(NamedTuple):
  """A row an image: float [N] each; PAC is NaN where the prototype was not active before.

  Attributes:
    pac, prc, plc: see the functions of these names.
  """

  pac: Float[np.ndarray, " N"]
  prc: Float[np.ndarray, " N"]
  plc: Float[np.ndarray, " N"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Misalignment:
  """Means over images; `pac` over those whose prototype was active before."""

  pac: Estimate
  prc: Estimate
  plc: Estimate


def attacked_prototypes(
  maps: Float[Array, "N h w P"],
  labels: Int[Array, " n"],
  prototype_class: Int[Array, " p"],
  *,
  which: str = "top_proto",
) -> Chosen:
  """The maps of the prototypes to attack: the most activated one of all ("top_proto"), or all of
  the true class ("gt_protos")."""
  if which not in ATTACKED:
    raise InputError(f"which={which!r} is not known; it must be one of {', '.join(ATTACKED)}")
  return strongest(maps, 1) if which == "top_proto" else own(maps, labels, prototype_class)


def protected_region(
  chosen: Chosen, image_size: int = 224, *, definition: str = "paper"
) -> Bool[np.ndarray, "N S S"]:
  """The pixels that the attack must leave alone: around each attacked prototype's box.

  The box of the values at or above the 95th percentile of the upsampled map, wider by 10 of 224
  pixels on each side; of several prototypes, all of theirs together.

  Args:
    chosen: the maps before the attack.
    image_size: S, the side of the image.
    definition: "released": the last row and column never belong to it, by a slip.
  """
  checks.definition(definition)
  maps = checks.maps(chosen.maps)
  end = image_size - 1 if definition == "released" else image_size
  margin = round(MARGIN * image_size)
  boxes = per_map(
    lambda up, _: regions.tight_boxes(up >= quantiles(up, PROTECTED)), maps, image_size
  )
  # Each [N, K, 1], as the pixels' places are the last axis.
  y0, y1, x0, x1 = np.moveaxis(boxes, -1, 0)[..., None]
  place, there = np.arange(end), (chosen.prototypes >= 0)[:, :, None]
  rows = (y0 - margin <= place) & (place < y1 + margin) & there
  columns = (x0 - margin <= place) & (place < x1 + margin)
  protected = np.zeros((len(maps), image_size, image_size), bool)
  for k in range(maps.shape[3]):
    protected[:, :end, :end] |= rows[:, k, :, None] & columns[:, k, None, :]
  return protected


def pac(before: Float[Array, " N"], after: Float[Array, " N"]) -> Float[np.ndarray, " N"]:
  """Prototype activation change: 1 - a' / a of activations that are clipped at 0.

  NaN where it was not active before; negative where it is more active after.
  """
  before, after = (np.maximum(np.asarray(a, np.float64), 0) for a in (before, after))
  change = np.full(len(before), np.nan)
  np.divide(before - after, before, out=change, where=before > 0)
  return change


def prc(
  before: Float[Array, "N P"],
  after: Float[Array, "N P"],
  attacked: Int[np.ndarray, " N"],
  prototype_class: Int[Array, " P"],
  own_class: Int[Array, " N"],
) -> Float[np.ndarray, " N"]:
  """Prototype ranking change: how many more prototypes of other classes are stronger than it.

  Args:
    before, after: activations, which are clipped at 0.
    attacked: the prototype of each image.
    own_class: prototypes of this class of each image are left out.
  """
  others = np.asarray(prototype_class)[None, :] != np.asarray(own_class)[:, None]
  rows = np.arange(len(attacked))

  def stronger(activations: Float[Array, "N P"]) -> Int[np.ndarray, " N"]:
    clipped = np.maximum(np.asarray(activations), 0)
    return ((clipped > clipped[rows, attacked][:, None]) & others).sum(axis=1)

  return (stronger(after) - stronger(before)).astype(np.float64)


def plc(
  before: Float[Array, "N h w"], after: Float[Array, "N h w"], image_size: int = 224
) -> Float[np.ndarray, " N"]:
  """Prototype location change: 1 - IoU of the pixels above the 90th percentile of each map.

  The maps are clipped at 0 and upsampled bilinearly. 0 where neither has such a pixel.
  """
  masks = []
  for given, name in ((before, "before"), (after, "after")):
    maps = np.maximum(checks.maps(np.asarray(given)[..., None], name), 0)
    above = per_map(lambda up, _: up > quantiles(up, LOCATION), maps, image_size, kernel="bilinear")
    masks.append(above[:, 0])
  either = (masks[0] | masks[1]).sum(axis=(1, 2))
  shared = (masks[0] & masks[1]).sum(axis=(1, 2))
  return 1 - np.divide(shared, either, out=np.ones(len(either)), where=either > 0)


def misalignment(
  maps: Float[Array, "N h w P"],
  attacked_maps: Float[Array, "n r c Q"],
  labels: Int[Array, " m"],
  prototype_class: Int[Array, " p"],
  *,
  which: str = "top_proto",
  image_size: int = 224,
  definition: str = "paper",
) -> Misalignment:
  """PAC, PRC and PLC of the strongest of the prototypes that were attacked.

  Args:
    maps, attacked_maps: similarity maps of the images, and of the same after the attack.
    labels, prototype_class: classes of images and prototypes.
    which: see `attacked_prototypes`.
    image_size: S, the side of the image.
    definition: "paper": PRC leaves out the class of the attacked prototype; "released": the class
      of the image, also where the attacked prototype is of another; and it is an error, not a
      missing number, where a prototype was not active before.

  Raises:
    InputError: an array does not fit, or a map is not finite.
  """
  return misalignment_of(
    misalignment_rows(
      maps, attacked_maps, labels, prototype_class,
      which=which, image_size=image_size, definition=definition,
    )
  )  # fmt: skip


def misalignment_rows(
  maps: Float[Array, "N h w P"],
  attacked_maps: Float[Array, "n r c Q"],
  labels: Int[Array, " m"],
  prototype_class: Int[Array, " p"],
  *,
  which: str = "top_proto",
  image_size: int = 224,
  definition: str = "paper",
) -> MisalignmentRows:
  """The numbers of each image."""
  checks.definition(definition)
  checks.same_grid(maps, attacked_maps, "attacked_maps")
  chosen = attacked_prototypes(maps, labels, prototype_class, which=which)
  height = np.where(chosen.prototypes < 0, -np.inf, np.asarray(chosen.maps).max(axis=(1, 2)))
  rows = np.arange(len(height))
  j = chosen.prototypes[rows, height.argmax(axis=1)]
  if (j < 0).any():
    raise InputError(
      f"image {int((j < 0).argmax())} is of a class without prototypes; leave it out"
    )
  before, after = checks.maps(maps), checks.maps(attacked_maps, "attacked_maps")
  top = before.max(axis=(1, 2)), after.max(axis=(1, 2))
  classes = np.asarray(prototype_class)
  own_class = np.asarray(labels) if definition == "released" else classes[j]
  change = pac(top[0][rows, j], top[1][rows, j])
  if definition == "released" and np.isnan(change).any():
    raise InputError(
      f"prototype {j[np.isnan(change)][0]} is not active in image {int(np.isnan(change).argmax())}"
      ', and the released code divides by its activation; use definition="paper"'
    )
  return MisalignmentRows(
    pac=change,
    prc=prc(*top, j, classes, own_class),
    plc=plc(before[rows, :, :, j], after[rows, :, :, j], image_size),
  )


def misalignment_of(rows: MisalignmentRows) -> Misalignment:
  """The same from the rows of all images."""
  return Misalignment(
    **{name: Estimate.of_mean(getattr(rows, name), "image") for name in ("pac", "prc", "plc")}
  )
