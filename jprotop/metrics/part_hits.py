"""Which annotated parts lie in the box around a prototype's peak: of consistency and stability.

Huang et al., "Evaluation and Improvement of Interpretability for Self-Explainable Part-Prototype
Networks" (ICCV 2023), and its released code, EvalProtoPNet.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from jprotop.errors import InputError
from jprotop.metrics import checks
from jprotop.metrics.checks import Array
from jprotop.metrics.maps import Peaks

# Half of the box's side, as a share of the image's: 36 pixels of 224.
HALF_SIZE = 36 / 224


class PartHits(NamedTuple):
  """Which parts each chosen prototype hits: a row an image.

  Attributes:
    hits: bool [N, K, L], whether visible part l lies in the box of the image's map k.
    visible: bool [N, L].
    prototypes: int [N, K]; -1: of none, which hits nothing.
  """

  hits: Bool[np.ndarray, "N K L"]
  visible: Bool[np.ndarray, "N L"]
  prototypes: Int[np.ndarray, "N K"]


def part_hits(
  peaks: Peaks,
  parts: Real[Array, "N L 3"] | None,
  *,
  half_size: float = HALF_SIZE,
  definition: str = "paper",
) -> PartHits:
  """The parts in the box of each peak.

  Args:
    peaks: of the upsampled maps.
    parts: (x, y, visible) in pixels of the image that the peaks are of.
    half_size: half of the box's side, as a share of the image's.
    definition: "paper": a box of 2 half_size pixels, [r - half_size, r + half_size) around the peak
      r; "released": both ends belong to it, so that it has a pixel more.

  Raises:
    InputError: there are no parts, or they do not fit.
  """
  checks.definition(definition)
  checks.share(half_size, "half_size")
  points = checks.parts(parts, len(peaks.place))
  visible = points[..., 2] > 0
  half = half_size * peaks.image_size
  centre = peaks.place[:, :, None, :].astype(np.float64)  # (row, column)
  at = points[:, None, :, [1, 0]]
  # Parts outside of the image are in no box.
  low, high = np.maximum(centre - half, 0), np.minimum(centre + half, peaks.image_size)
  with np.errstate(invalid="ignore"):  # Where a part is not visible, its place may be NaN.
    inside = (low <= at) & ((at <= high) if definition == "released" else (at < high))
  hits = inside.all(axis=3) & visible[:, None, :] & (peaks.prototypes >= 0)[:, :, None]
  return PartHits(hits, visible, peaks.prototypes)


def part_positions(
  points: Real[Array, "N L 3"], boxes: Real[Array, "N 4"], *, image_size: int = 224
) -> Float[np.ndarray, "N L 3"]:
  """Where EvalProtoPNet puts parts: cut down to whole pixels, before and after they are scaled.

  By rounding, an exact 61, 115 or 122 of 224 becomes 60, 114 or 121. For `definition="released"`;
  the exact place is (x - box x) * image_size / box width.

  Args:
    points: (x, y, visible) in pixels of the original.
    boxes: (x, y, width, height) that the image was cropped to, in its pixels.
    image_size: of the crop as the network sees it.
  """
  points, boxes = np.asarray(points, np.float64), np.asarray(boxes, np.float64)
  if boxes.shape != (len(points), 4):
    raise InputError(f"boxes has the shape {boxes.shape}; it must be [{len(points)}, 4]")
  place, boxes = np.trunc(np.nan_to_num(points)), np.trunc(boxes)[:, None]
  place[..., :2] = np.trunc(image_size * ((place[..., :2] - boxes[..., :2]) / boxes[..., 2:]))
  return place


def count_by_prototype(
  hits: PartHits, num_prototypes: int
) -> tuple[Int[np.ndarray, "P L"], Int[np.ndarray, "P L"]]:
  """For each prototype and part, on how many of its images it hits it, and the part is visible."""
  image, k = np.nonzero(hits.prototypes >= 0)
  prototype = hits.prototypes[image, k]
  checks.indices(prototype, num_prototypes, "prototype")
  hit = np.zeros((num_prototypes, hits.hits.shape[2]), np.int64)
  seen = np.zeros_like(hit)
  np.add.at(hit, prototype, hits.hits[image, k])
  np.add.at(seen, prototype, hits.visible[image])
  return hit, seen
