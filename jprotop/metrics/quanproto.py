"""QuanProto's complexity: how the strongest prototypes' regions overlap object and background.

  overlap(maps, masks).object_overlap.value
  rows = [overlap_rows(strongest(batch, 5), masks) for batch ...]; overlap_of(merge(rows))

Schlinge et al., "Comprehensive Evaluation of Prototype Neural Networks" (2025), and its released
code; docs/metrics/overlap.md. Its consistency is not that of EvalProtoPNet.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from jprotop import regions
from jprotop.metrics import checks
from jprotop.metrics.checks import Array
from jprotop.metrics.estimate import Estimate
from jprotop.metrics.maps import Chosen, per_map, quantiles, strongest, sums

QUANTILE = 0.95
NUM_PROTOTYPES = 5


class OverlapRows(NamedTuple):
  """A row an image; K of its prototypes each.

  Attributes:
    object_overlap, background_overlap, iou, inside_outside, ratio: float [N, K], see `Overlap`.
  """

  object_overlap: Float[np.ndarray, "N K"]
  background_overlap: Float[np.ndarray, "N K"]
  iou: Float[np.ndarray, "N K"]
  inside_outside: Float[np.ndarray, "N K"]
  ratio: Float[np.ndarray, "N K"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlap:
  """Means over images and their strongest prototypes, of the 5% of pixels that each marks.

  Attributes:
    object_overlap: the share of the object that is marked; at most 0.05 of the image over the
      object's size, so it says little of how much of a map is on the object.
    background_overlap: the share of what is marked that is not on the object.
    iou: of what is marked and the object.
    inside_outside: mean relevance of what is marked inside the object minus that outside of it, as
      a share of the map's maximum (IOR).
    ratio: mean relevance outside over that inside (OIRR). "paper": over those that mark something
      inside; "released": infinite as soon as one does not.
  """

  object_overlap: Estimate
  background_overlap: Estimate
  iou: Estimate
  inside_outside: Estimate
  ratio: Estimate


def overlap(
  maps: Float[Array, "N h w P"],
  masks: Bool[Array, "n H W"] | None,
  *,
  num_prototypes: int = NUM_PROTOTYPES,
  image_size: int = 224,
  definition: str = "paper",
) -> Overlap:
  """How the regions of an image's strongest prototypes, of all classes, lie on the object.

  Args:
    maps: similarity maps.
    masks: where the object is, in the image that the network sees.
    num_prototypes: how many of each image.
    image_size: S, the side of the image.
    definition: they differ in `ratio`.

  Raises:
    InputError: there are no masks, an array does not fit, or a map is not finite.
  """
  rows = overlap_rows(strongest(maps, num_prototypes), masks, image_size=image_size)
  return overlap_of(rows, definition=definition)


def overlap_rows(
  chosen: Chosen, masks: Bool[Array, "n H W"] | None, *, image_size: int = 224
) -> OverlapRows:
  """The numbers of each image's chosen prototypes."""
  maps = checks.maps(chosen.maps)
  objects = checks.masks(masks, len(maps), image_size)
  found = per_map(lambda up, image: _overlaps(up, objects[image]), maps, image_size)
  return OverlapRows(*np.moveaxis(found, -1, 0))


def overlap_of(rows: OverlapRows, *, definition: str = "paper") -> Overlap:
  """The same from the rows of all images."""
  checks.definition(definition)
  means = {name: Estimate.of_mean(getattr(rows, name).mean(axis=1), "image") for name in (
    "object_overlap", "background_overlap", "iou", "inside_outside"
  )}  # fmt: skip
  inside = np.isfinite(rows.ratio)
  if definition == "released" and not inside.all():
    infinite = Estimate(value=float("inf"), total=len(inside), interval=None, unit="image")
    return Overlap(**means, ratio=infinite)
  return Overlap(**means, ratio=Estimate.over_images(rows.ratio, inside))


def marked(up: Float[np.ndarray, "m H W"]) -> Bool[np.ndarray, "m H W"]:
  """The 5% of pixels of upsampled maps that are highest: at or above their 95th percentile."""
  return up >= quantiles(up, QUANTILE)


def _overlaps(up: np.ndarray, objects: np.ndarray) -> np.ndarray:
  """The fields of OverlapRows of each of m maps, [m, 5]."""
  mask = marked(up)
  inside = mask & objects
  size, shared = mask.sum(axis=(1, 2)), inside.sum(axis=(1, 2))
  either = (mask | objects).sum(axis=(1, 2))
  highest, relevant = up.max(axis=(1, 2)), up != 0
  highest = np.where(highest == 0, 1, highest)  # Of a map without any relevance.
  in_mean = _mean_over(up, inside & relevant) / highest
  out_mean = _mean_over(up, (mask ^ inside) & relevant) / highest
  ratio = np.divide(out_mean, in_mean, out=np.full(len(up), np.inf), where=in_mean != 0)
  return np.stack(
    [shared / objects.sum(axis=(1, 2)), 1 - shared / size, shared / either,
     in_mean - out_mean, ratio], axis=1,
  )  # fmt: skip


def _mean_over(values: np.ndarray, where: np.ndarray) -> np.ndarray:
  """Mean of [m, H, W] over booleans, 0 where there are none."""
  count = where.sum(axis=(1, 2))
  return np.divide(sums(values, where), count, out=np.zeros(len(count)), where=count > 0)


class FoundParts(NamedTuple):
  """A row an image.

  Attributes:
    ids: int [N, K, L], of each part that is found in the region of map k, 1 and on; 0: not found.
    prototypes: int [N, K].
  """

  ids: Int[np.ndarray, "N K L"]
  prototypes: Int[np.ndarray, "N K"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Consistency(Estimate):
  """A mean over the prototypes that are among the strongest of some image.

  Attributes:
    by_prototype: float [P], NaN of the others.
  """

  by_prototype: Float[np.ndarray, " P"] = dataclasses.field(repr=False)


def consistency(
  maps: Float[Array, "N h w P"],
  parts: Real[Array, "n L 3"] | None,
  *,
  num_prototypes: int = NUM_PROTOTYPES,
  boxes: bool = True,
  image_size: int = 224,
  definition: str = "paper",
) -> Consistency:
  """How often a prototype's region holds each of the parts that it ever holds.

  Over the images in which a prototype is among the strongest ones. A part that its region never
  holds does not lower its number, so that it is not comparable to EvalProtoPNet's consistency.

  Args:
    maps: similarity maps.
    parts: (x, y, visible) in pixels of the image that the network sees.
    num_prototypes: how many of each image, of all classes.
    boxes: whether the region is the bounding box of the 5% highest pixels, or these pixels.
    image_size: S, the side of the image.
    definition: without boxes, "released" multiplies the part's number by the map's value, cut down
      to a whole number: below 1 parts vanish, above 2 they pass for others.

  Raises:
    InputError: there are no parts, an array does not fit, or a map is not finite.
  """
  chosen = strongest(maps, num_prototypes)
  found = found_parts(chosen, parts, boxes=boxes, image_size=image_size, definition=definition)
  return consistency_of(found, np.shape(maps)[3])


def found_parts(
  chosen: Chosen,
  parts: Real[Array, "n L 3"] | None,
  *,
  boxes: bool = True,
  image_size: int = 224,
  definition: str = "paper",
) -> FoundParts:
  """Which parts are found in the regions of each image's chosen prototypes."""
  checks.definition(definition)
  maps = checks.maps(chosen.maps)
  points = checks.parts(parts, len(maps))
  seen = points[..., 2] > 0
  pixel = np.floor(np.where(seen[..., None], points[..., [1, 0]], -1)).astype(int)
  seen &= ((pixel >= 0) & (pixel < image_size)).all(axis=2)
  # The last pixel stands for parts that are not visible, as in the released code.
  pixel = np.where(seen[..., None], pixel, -1)
  number = 1 + np.arange(points.shape[1])

  def ids(up: Float[np.ndarray, "m S S"], image: Int[np.ndarray, " m"]) -> Int[np.ndarray, "m L"]:
    mask, at, there = marked(up), pixel[image], seen[image]
    if boxes:
      return np.where(there & _in_box(mask, at), number, 0)
    rows = np.arange(len(up))[:, None]
    if definition == "released":
      relevance = np.trunc(np.where(mask, up, 0)).astype(int)
      return relevance[rows, at[..., 0], at[..., 1]] * np.where(there, number, -1)
    return np.where(there & mask[rows, at[..., 0], at[..., 1]], number, 0)

  return FoundParts(per_map(ids, maps, image_size), np.asarray(chosen.prototypes))


def _in_box(mask: np.ndarray, at: np.ndarray) -> np.ndarray:
  """Whether pixels [m, L, 2] lie in the bounding box of each mask [m, H, W]."""
  y0, y1, x0, x1 = regions.tight_boxes(mask).T[..., None]
  y, x = at[..., 0], at[..., 1]
  return (y0 <= y) & (y < y1) & (x0 <= x) & (x < x1)


def consistency_of(found: FoundParts, num_prototypes: int) -> Consistency:
  """The same from `found_parts` of all images, for P = num_prototypes."""
  there = found.prototypes >= 0
  checks.indices(found.prototypes[there], num_prototypes, "prototype")
  images = np.bincount(found.prototypes[there], minlength=num_prototypes)
  image, k, part = np.nonzero((found.ids != 0) & there[..., None])
  pairs = np.stack([found.prototypes[image, k], found.ids[image, k, part]], axis=1)
  different, counts = np.unique(pairs, axis=0, return_counts=True)
  prototype = different[:, 0]
  kinds = np.bincount(prototype, minlength=num_prototypes)
  total = np.bincount(prototype, weights=counts, minlength=num_prototypes)
  score = np.divide(total, kinds * images, out=np.zeros(num_prototypes), where=kinds * images > 0)
  by_prototype = np.where(images > 0, score, np.nan)
  return Consistency.of_mean(by_prototype, "prototype", by_prototype=by_prototype)
