"""Head on Stomach as arrays and numbers: the attack of every case, and what came of it."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Bool, Float, Int

from jprotop import parallel, regions, statistics
from jprotop.attacks import visibility
from jprotop.attacks.budget import Budget
from jprotop.attacks.cases import Cases, Rules
from jprotop.attacks.perturb import AttackBatch, Views, as_record, with_control
from jprotop.data.parts import BACKGROUND, HEAD_TO_STOMACH
from jprotop.experiments.attacking import Sample
from jprotop.prototypes.see import Network
from jprotop.runs.records import Mean, Paired, Record, Share

# A movement's `sat_on` where an image has no annotated parts.
UNKNOWN = "not annotated"


class Metrics(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
  """What the noise did: similarities are maxima over the cells of S or S_noisy.

  A success is an image whose prototype moved to S_noisy and whose class was kept; those named
  success_ are of the successes alone, the others of all attacked images. share_below_own is the
  share of the same prototype's maxima on clean test images that lie below the one in S_noisy.
  """

  moved_to_target: Share
  control_moved: Share
  exceeds_clean_maximum: Share
  exceeds_clean_maximum_by: Mean
  prediction_kept: Share
  moved_and_prediction_kept: Share
  control_moved_and_prediction_kept: Share
  success_minus_control: Paired
  success_exceeds_clean_maximum: Share
  success_exceeds_clean_maximum_by: Mean
  clean_peak_in_target: Share
  similarity_source_before: Mean
  similarity_source_after: Mean
  similarity_target_before: Mean
  similarity_target_after: Mean
  largest_change: float
  psnr: Mean
  ssim: Mean
  success_share_below_own: Mean | None = None
  share_below_own: Mean | None = None
  share_below_attacked: Mean | None = None
  share_below_4: Mean | None = None


class Movement(msgspec.Struct, forbid_unknown_fields=True):
  """The images whose prototype sat on one part, or BACKGROUND, or UNKNOWN, and was sent to one
  target: of how many it arrived, by the attack and by random noise."""

  sat_on: str
  target: str
  moved_to_target: Share
  control_moved: Share


class HeadOnStomach(Record):
  """The attack's settings, its numbers, and a row an image; sample: None where images are given."""

  request: dict[str, Any]
  num_images: int
  sample: Sample | None
  not_attacked: list[dict[str, str]]
  num_overlapping: int
  unreadable: list[str]
  protocol: str
  seed: int
  eps: float
  step_size: float
  num_steps: int
  random_start: bool
  survive_jpeg: int | None
  metrics: Metrics
  by_target: dict[str, dict[str, Share]]
  movements: list[Movement]
  images: list[dict[str, Any]]


def attack(
  network: Network,
  cases: Cases,
  budget: Budget,
  rules: Rules,
  *,
  seed: int,
  batch_size: int,
  clean: Views | None = None,
  objective: str = "move",
) -> dict[str, np.ndarray]:
  """Solves Eq. (3) for every case.

  Args:
    clean: what is known of the clean images; see `perturb.with_control`.
    objective: what is raised, a name of `objectives.OBJECTIVES`.

  Returns:
    Arrays with a leading axis N: `images`, `attacked` [S, S, 3]; `mask` [S, S], the pixels of
    S_noisy; `source`, `target` [h, w]; `prototype`; and for each of clean, attacked and control
    (random signs of size eps on the same mask) `*_similarity_map` [h, w] and `*_logits` [C].
  """
  size = cases.images.image.shape[1]
  batch = AttackBatch(
    image=cases.images.image,
    pixels=regions.cells_to_pixels(cases.target, size, size),
    prototype=cases.prototype,
    key=parallel.key_array(seed, np.arange(len(cases.images))),
    source=cases.source,
    target=cases.target,
  )
  views = with_control(
    network, batch, budget, objective=objective, rules=rules, batch_size=batch_size, clean=clean
  )
  return {"source": cases.source, "target": cases.target, **as_record(batch, views)}


def summarise(
  record: dict[str, np.ndarray],
  rule: list[str],
  *,
  activations: Float[np.ndarray, "n P"] | None = None,
  log_similarity: bool = True,
) -> dict:
  """The numbers of Head on Stomach from the arrays of `attack`, each with count and interval.

  Similarities are maxima over the cells of S or S_noisy: what the network reports there.

  Args:
    record: what `attack` returns.
    rule: how each image's S_noisy was chosen.
    activations: of all clean test images, to compare with; None leaves that out.
    log_similarity: whether similarities are logarithmic, so that 4 is "very high" (Section 3).
  """
  after = regions.max_over_cells(record["attacked_similarity_map"], record["target"])
  above = after - record["clean_similarity_map"].max(axis=(1, 2))
  success, by_noise = succeeded(record)
  numbers = {
    "moved_to_target": statistics.share(arrived(record)[0]),
    "exceeds_clean_maximum": statistics.share(above > 0),
    "exceeds_clean_maximum_by": statistics.mean(above),
    "moved_and_prediction_kept": statistics.share(success),
    "control_moved_and_prediction_kept": statistics.share(by_noise),
    "success_minus_control": statistics.paired_difference(success, by_noise),
    "success_exceeds_clean_maximum": statistics.share(above[success] > 0),
    "success_exceeds_clean_maximum_by": statistics.mean(above[success]),
    **_beside(record),
  }
  if activations is not None:
    own = share_below_own(activations, record["prototype"], after)
    numbers["success_share_below_own"] = statistics.mean(own[success])
    numbers["share_below_own"] = statistics.mean(own)
    numbers["share_below_attacked"] = statistics.mean(share_below(activations, after))
    if log_similarity:
      # By images: the similarities of one image to all prototypes are not independent.
      numbers["share_below_4"] = statistics.mean((activations < 4).mean(axis=1))
  return {"metrics": numbers, "by_target": {r: _arrivals(record, rule, r) for r in sorted({*rule})}}


def _arrivals(record: dict[str, np.ndarray], ways: Sequence, way: Any) -> dict:
  """How many prototypes of the images that are of one way arrived; `ways` is each image's."""
  these = np.array([other == way for other in ways])
  attacked, control = arrived(record)
  return {
    "moved_to_target": statistics.share(attacked[these]),
    "control_moved": statistics.share(control[these]),
  }


def arrived(
  record: dict[str, np.ndarray],
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
  """Whether the strongest cell of each map lies in S_noisy: attacked, and control."""
  maps = (record[f"{name}_similarity_map"] for name in ("attacked", "control"))
  attacked, control = (regions.peak_inside(each, record["target"]) for each in maps)
  return attacked, control


def succeeded(
  record: dict[str, np.ndarray],
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
  """Whether each prototype is found in S_noisy and the predicted class was kept: attacked, and
  control."""
  attacked, control = arrived(record)
  return attacked & _kept(record, "attacked"), control & _kept(record, "control")


def _kept(record: dict[str, np.ndarray], name: str) -> Bool[np.ndarray, " N"]:
  """Whether the class predicted for the images of a name is that of the clean images."""
  return record[f"{name}_logits"].argmax(1) == record["clean_logits"].argmax(1)


def movements(record: dict[str, np.ndarray], cases: Cases) -> list[dict]:
  """How many prototypes really went from where they sat to where they were sent, by both places;
  from head to stomach first."""
  ways = list(zip(sat_on(cases), cases.rule))
  return [
    {"sat_on": way[0], "target": way[1], **_arrivals(record, ways, way)}
    for way in sorted(set(ways), key=lambda way: (way != HEAD_TO_STOMACH, way))
  ]


def sat_on(cases: Cases) -> list[str]:
  """The part group that each image's prototype sits on, else BACKGROUND; UNKNOWN where no part of
  the image is annotated."""
  annotated = np.asarray(cases.images.points[..., 2].any(axis=1))
  return [
    (group or BACKGROUND) if known else UNKNOWN
    for group, known in zip(cases.source_group, annotated)
  ]


def _beside(record: dict[str, np.ndarray]) -> dict:
  """What the attack is compared with: the control, and similarities before and after."""
  clean, attacked = record["clean_similarity_map"], record["attacked_similarity_map"]
  found = {
    "clean_peak_in_target": statistics.share(regions.peak_inside(clean, record["target"])),
    "control_moved": statistics.share(arrived(record)[1]),
    "prediction_kept": statistics.share(_kept(record, "attacked")),
    "largest_change": float(np.abs(record["attacked"] - record["images"]).max()),
    **visibility.summarise(record["images"], record["attacked"]),
  }
  for cells in ("source", "target"):
    for time, maps in (("before", clean), ("after", attacked)):
      highest = regions.max_over_cells(maps, record[cells])
      found[f"similarity_{cells}_{time}"] = statistics.mean(highest)
  return found


def counts(cases: Cases) -> dict:
  """How many images there are, which are not attacked, and where S_noisy and S share cells."""
  return {
    "num_images": len(cases.images),
    "not_attacked": cases.skipped,
    "num_overlapping": int((cases.source & cases.target).any(axis=(1, 2)).sum()),
  }


def share_below(
  values: Float[np.ndarray, "..."], levels: Float[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
  """Share of all values that are below each of the levels."""
  return np.searchsorted(np.sort(values, axis=None), levels, side="left") / values.size


def share_below_own(
  activations: Float[np.ndarray, "n P"],
  prototype: Int[np.ndarray, " N"],
  levels: Float[np.ndarray, " N"],
) -> Float[np.ndarray, " N"]:
  """Share of the activations of each level's own prototype that are below it."""
  return (activations[:, prototype] < levels).mean(axis=0)


def per_image(record: dict[str, np.ndarray], cases: Cases, class_names: list[str]) -> list[dict]:
  """One row an image, for results.json and for tables."""
  clean, attacked = record["clean_similarity_map"], record["attacked_similarity_map"]
  columns = {
    "clean_maximum": clean.max(axis=(1, 2)),
    "similarity_source_before": regions.max_over_cells(clean, record["source"]),
    "similarity_source_after": regions.max_over_cells(attacked, record["source"]),
    "similarity_target_before": regions.max_over_cells(clean, record["target"]),
    "similarity_target_after": regions.max_over_cells(attacked, record["target"]),
  }
  moved, by_noise = arrived(record)
  rows = []
  for i, image_id in enumerate(cases.images.image_id):
    label = int(cases.images.label[i])
    rows.append(
      {
        "image_id": image_id,
        "prototype": int(cases.prototype[i]),
        "true_class": class_names[label] if label >= 0 else None,
        "predicted_before": class_names[int(record["clean_logits"][i].argmax())],
        "predicted_after": class_names[int(record["attacked_logits"][i].argmax())],
        "target": cases.rule[i],
        "cells_in_source_and_target": int((record["source"][i] & record["target"][i]).sum()),
        "prototype_sits_on": cases.source_group[i] or None,
        "moved_to_target": bool(moved[i]),
        "control_moved": bool(by_noise[i]),
        **{name: float(values[i]) for name, values in columns.items()},
      }
    )
  return rows
