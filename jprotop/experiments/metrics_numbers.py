"""All metrics of one network: its maps read a batch at a time, and a number or a reason for each.

It knows nothing of networks: the arrays come from a run, or from a file.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from jprotop import metrics
from jprotop.errors import InputError
from jprotop.metrics import checks, quanproto
from jprotop.metrics.estimate import Estimate
from jprotop.metrics.maps import Chosen
from jprotop.metrics.prototype_purity import PatchPeaks


class Batch(NamedTuple):
  """Maps of some images.

  Attributes:
    first: the number of its first image, for messages.
    own, top: of the prototypes of each image's class, and of the strongest five of all.
    noisy: own maps of the images with noise; None: there are none.
    patches: where each prototype is highest.
    parts, masks: of these images, or None.
    image_size: S.
  """

  first: int
  own: Chosen
  top: Chosen
  noisy: Chosen | None
  patches: PatchPeaks
  parts: Real[np.ndarray, "N L 3"] | None
  masks: Bool[np.ndarray, "N H W"] | None
  image_size: int


@dataclasses.dataclass(frozen=True)
class Whole:
  """What is known of all images and prototypes.

  Attributes:
    prototype_class: of each prototype.
    parts, released_parts: exact and as EvalProtoPNet places them; None: there are none.
    pairs: parts that count as one in purity.
    weights: of the last layer, or None.
    image_size: S.
  """

  prototype_class: Int[np.ndarray, " P"]
  parts: Real[np.ndarray, "N L 3"] | None
  released_parts: Real[np.ndarray, "N L 3"] | None
  pairs: tuple[tuple[int, int], ...]
  weights: Float[np.ndarray, "p C"] | None
  image_size: int

  def __post_init__(self):
    if self.weights is not None and len(self.weights) != len(self.prototype_class):
      raise InputError(
        f"weights has {len(self.weights)} rows, but there are {len(self.prototype_class)} "
        "prototypes; give [P, C]"
      )


def _noisy_peaks(batch: Batch):
  if batch.noisy is None:
    raise InputError("there are no maps of noisy images; give noisy_maps")
  return metrics.peaks(batch.noisy, batch.image_size)


# What is kept of each batch.
ROWS: Mapping[str, Callable[[Batch], Any]] = {
  "peaks": lambda b: metrics.peaks(b.own, b.image_size),
  "noisy_peaks": _noisy_peaks,
  "patches": lambda b: b.patches,
  "own": lambda b: np.asarray(b.own.prototypes),
  "distinct": lambda b: metrics.distinctiveness_rows(b.own, image_size=b.image_size),
  "distinct_released": lambda b: metrics.distinctiveness_rows(
    b.own, image_size=b.image_size, definition="released"
  ),
  "covered": lambda b: metrics.comprehensiveness_rows(b.own, b.masks, image_size=b.image_size),
  "energy": lambda b: metrics.energy_rows(b.own, b.masks, image_size=b.image_size),
  "energy_released": lambda b: metrics.energy_rows(
    b.own, b.masks, image_size=b.image_size, definition="released"
  ),
  "mask": lambda b: metrics.mask_rows(b.own, b.masks, image_size=b.image_size),
  "mask_released": lambda b: metrics.mask_rows(
    b.own, b.masks, image_size=b.image_size, definition="released"
  ),
  "overlap": lambda b: quanproto.overlap_rows(b.top, b.masks, image_size=b.image_size),
  "found": lambda b: quanproto.found_parts(b.top, b.parts, image_size=b.image_size),
}


class Reading:
  """The rows of all batches, and why there are none of some kind."""

  def __init__(self):
    self._rows: dict[str, list] = {name: [] for name in ROWS}
    self._missing: dict[str, InputError] = {}

  def add(self, batch: Batch) -> None:
    """Reads a batch; what cannot be read of it is not read of others either."""
    for name, rows_of in ROWS.items():
      if name not in self._missing:
        try:
          self._rows[name].append(rows_of(batch))
        except InputError as error:
          where = f"counted from image {batch.first}: " if batch.first else ""
          self._missing[name] = InputError(f"{where}{error}")

  def __getitem__(self, name: str) -> Any:
    """All rows of one kind; InputError, with the reason, where there are none."""
    if name in self._missing:
      raise self._missing[name]
    return metrics.merge(self._rows[name])


def _hits(reading: Reading, whole: Whole, definition: str, peaks: str = "peaks"):
  parts = whole.parts if definition == "paper" else whole.released_parts
  return metrics.part_hits(reading[peaks], parts, definition=definition)


def _both(of: Callable[[str], Any]) -> dict[str, Any]:
  return {definition: of(definition) for definition in checks.DEFINITIONS}


def _consistency(reading: Reading, whole: Whole) -> dict[str, Estimate]:
  number = len(whole.prototype_class)
  return _both(lambda d: metrics.consistency_of(_hits(reading, whole, d), number))


def consistency_curve(reading: Reading, whole: Whole) -> Sequence[Estimate]:
  """Consistency, as the paper has it, at each of the thresholds."""
  return metrics.consistency_curve(_hits(reading, whole, "paper"), len(whole.prototype_class))


def _stability(reading: Reading, whole: Whole) -> dict[str, Estimate]:
  number = len(whole.prototype_class)
  found = _both(
    lambda d: metrics.stability_of(
      _hits(reading, whole, d), _hits(reading, whole, d, "noisy_peaks"), number
    )
  )
  paper = found["paper"]
  return {**found, "empty": paper.empty, "where_hit": paper.stable_where_hit}


def _purity(reading: Reading, whole: Whole) -> dict[str, Estimate]:
  return _both(
    lambda d: metrics.purity_of(
      reading["patches"], whole.parts,
      weights=whole.weights, pairs=whole.pairs, image_size=whole.image_size, definition=d,
    )
  )  # fmt: skip


def _distinctiveness(reading: Reading, whole: Whole) -> dict[str, Estimate]:
  names = {"paper": "distinct", "released": "distinct_released"}
  return _both(lambda d: metrics.distinctiveness_of(reading[names[d]]))


def _comprehensiveness(reading: Reading, whole: Whole) -> dict[str, Estimate]:
  return {"paper": metrics.comprehensiveness_of(reading["covered"])}


def _pointing_game(reading: Reading, whole: Whole, rows: str) -> dict[str, Estimate]:
  names = {"paper": rows, "released": f"{rows}_released"}
  return _both(lambda d: metrics.pointing_game_of(reading[names[d]], reading["own"]))


def _overlap(reading: Reading, whole: Whole) -> dict[str, Estimate]:
  found = quanproto.overlap_of(reading["overlap"])
  return {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}


def _quanproto_consistency(reading: Reading, whole: Whole) -> dict[str, Estimate]:
  return {"paper": quanproto.consistency_of(reading["found"], len(whole.prototype_class))}


def _local_size(reading: Reading, whole: Whole) -> dict[str, Estimate]:
  return {"paper": metrics.local_size(reading["patches"].score)}


METRICS: Mapping[str, Callable[[Reading, Whole], dict[str, Estimate]]] = {
  "consistency": _consistency,
  "stability": _stability,
  "purity": _purity,
  "distinctiveness": _distinctiveness,
  "local_size": _local_size,
  "quanproto_consistency": _quanproto_consistency,
  "comprehensiveness": _comprehensiveness,
  "pointing_game_energy": lambda reading, whole: _pointing_game(reading, whole, "energy"),
  "pointing_game_mask": lambda reading, whole: _pointing_game(reading, whole, "mask"),
  "quanproto_overlap": _overlap,
}


def numbers(reading: Reading, whole: Whole) -> dict[str, Any]:
  """{measured: {metric: {variant: number}}, missing: {metric: reason}, curve, weights}."""
  measured, missing = {}, {}
  for name, of in METRICS.items():
    try:
      found = of(reading, whole)
      measured[name] = {variant: _record(estimate) for variant, estimate in found.items()}
    except InputError as error:
      missing[name] = str(error)
  has_curve = "consistency" in measured
  curve = consistency_curve(reading, whole) if has_curve else []
  return {
    "measured": measured,
    "missing": missing,
    "consistency_curve": [_record(point) for point in curve],
    "weights": None if whole.weights is None else _weights(whole.weights),
  }


def _record(estimate: Estimate) -> dict:
  return {**estimate.as_record(), "unit": estimate.unit}


def _weights(weights: np.ndarray) -> dict:
  counts = metrics.weight_counts(weights)
  return {
    "global_size": counts.global_size,
    "num_prototypes": len(weights),
    "sparsity": counts.sparsity,
    "negative_share": counts.negative_share,
  }
