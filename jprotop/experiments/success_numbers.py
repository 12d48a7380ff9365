"""App. F.1 and Table 3 in numbers: how often Head on Stomach succeeds, from where to where."""

from typing import Any

import msgspec
import numpy as np
from jaxtyping import Bool

from jprotop import statistics
from jprotop.attacks import cases as attack_cases
from jprotop.attacks.cases import Rules
from jprotop.attacks.in_turn import Outcome, Outcomes, Subjects
from jprotop.data.parts import BACKGROUND, GROUPS
from jprotop.experiments.attacking import Sample
from jprotop.experiments.displacement import Displacement, displacement
from jprotop.runs.records import Record, Share


class Rates(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
  """How often one kind of success is reached.

  rate_at k is of the images that k prototypes alone leave to attack, and rate_of_all_at of all
  images that were drawn: those that could not be attacked, or were dropped before a success, count
  as failures. So the two are bounds of what leaving images out may hide.
  """

  num_not_attackable: int
  rate_at: dict[str, Share]
  rate_of_all_at: dict[str, Share]


class Control(Rates, forbid_unknown_fields=True):
  """Random noise of the same size, tried in the same way; kept: with the class kept, too."""

  kept: Rates


class Attacked(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
  """Each image's place in the test split, and at which of its prototypes, from 1, the attack and
  the control succeeded: 0 where none did, None where the image could not be attacked."""

  index: list[int]
  moved: list[int | None]
  kept: list[int | None]
  control_moved: list[int | None]
  control_kept: list[int | None]


class Protocol(Rates, forbid_unknown_fields=True):
  """The rates are those of App. F.1: a prototype moved, whatever the class. kept: it moved and the
  predicted class was kept; the attack on an image goes on until that.

  num_images is of top_k; prediction_kept is of the first successes, success_and_prediction_kept of
  all images. displacement is of the successes that keep the class.
  """

  num_images: int
  num_fewer_than_asked: int
  sample: Sample
  top_k: int
  seed: int
  budget: dict[str, Any]
  prediction_kept: Share
  success_and_prediction_kept: Share
  kept: Rates
  control: Control
  displacement: Displacement
  parts: dict[str, Any] | None
  images: Attacked


class Ablated(msgspec.Struct, forbid_unknown_fields=True):
  """The protocol `paper` with one difference of `authors` switched on."""

  setting: str
  rate: Share
  rate_first: Share
  kept: Share
  kept_first: Share
  prediction_kept: Share


class SuccessRate(Record):
  """What was measured of each protocol."""

  paper: Protocol | None = None
  authors: Protocol | None = None
  ablation: list[Ablated] | None = None


def rates(outcome: Outcome, top_k: int) -> dict:
  """{"1": ..., "K": ...}: the share of attackable images with a success within the first k.

  Attackable are those that k prototypes alone leave to attack: a run with top_k=k finds the same.
  """
  found = {}
  for k in range(1, top_k + 1):
    rank = outcome.rank[outcome.attackable_within[:, k - 1]]
    found[str(k)] = statistics.share((rank >= 0) & (rank < k))
  return found


def both_rates(outcome: Outcome, top_k: int) -> dict:
  """The `Rates` of an outcome."""
  reached = {
    str(k): outcome.attackable_within[:, k - 1] & (outcome.rank >= 0) & (outcome.rank < k)
    for k in range(1, top_k + 1)
  }
  return {
    "num_not_attackable": int((~outcome.attackable).sum()),
    "rate_at": rates(outcome, top_k),
    "rate_of_all_at": {k: statistics.share(of_all) for k, of_all in reached.items()},
  }


def kept(subjects: Subjects, outcome: Outcome) -> Bool[np.ndarray, " N"]:
  """Whether a success left the predicted class as it was; False without a success."""
  return (outcome.rank >= 0) & (outcome.prediction == subjects.prediction)


def summarise(subjects: Subjects, outcomes: Outcomes, control: Outcomes) -> dict:
  """The numbers of one protocol, each with count and interval.

  Args:
    outcomes, control: of the attack, and of random noise that was tried in the same way.
  """
  top_k, moved = subjects.prototypes.shape[1], outcomes.moved
  kept_class, successful = kept(subjects, moved), moved.attackable & (moved.rank >= 0)
  return {
    **both_rates(moved, top_k),
    "num_images": int(moved.attackable.sum()),
    "top_k": top_k,
    "prediction_kept": statistics.share(kept_class[successful]),
    "success_and_prediction_kept": statistics.share(kept_class[moved.attackable]),
    "kept": both_rates(outcomes.kept, top_k),
    "control": {**both_rates(control.moved, top_k), "kept": both_rates(control.kept, top_k)},
    "displacement": _displacement(subjects, outcomes.kept),
    "parts": count_parts(subjects, moved),
    "images": {
      "index": subjects.index.tolist(),
      "moved": _success_at(moved),
      "kept": _success_at(outcomes.kept),
      "control_moved": _success_at(control.moved),
      "control_kept": _success_at(control.kept),
    },
  }


def _success_at(outcome: Outcome) -> list[int | None]:
  """As `Attacked` has them."""
  return [int(r) + 1 if can else None for r, can in zip(outcome.rank, outcome.attackable)]


def _displacement(subjects: Subjects, outcome: Outcome) -> dict:
  rows = np.flatnonzero(outcome.attackable & (outcome.rank >= 0))
  return displacement(
    subjects.maps[rows, outcome.rank[rows]],
    outcome.map[rows],
    outcome.margin[rows],
    subjects.images.points[rows],
    subjects.images.image.shape[1],
  )


def moves(subjects: Subjects, outcome: Outcome) -> list[tuple[str, str] | None]:
  """From which part group to which each successful prototype moved; None without a success."""
  found = []
  for i, rank in enumerate(outcome.rank):
    if rank < 0:
      found.append(None)
      continue
    points, size = subjects.images.points[i], subjects.images.image.shape[1]
    before, after = (
      attack_cases.group_of_map(similarity_map, points, size) or BACKGROUND
      for similarity_map in (subjects.maps[i, rank], outcome.map[i])
    )
    found.append((before, after))
  return found


def count_parts(subjects: Subjects, outcome: Outcome) -> dict | None:
  """Successes by the part group moved from (rows) and to (columns); None without annotated parts.

  Counted are images whose parts are annotated; the last group is where no part is near.
  """
  annotated = np.asarray(subjects.images.points[..., 2].any(axis=1))
  if not annotated.any():
    return None
  groups = [*GROUPS, BACKGROUND]
  counts = np.zeros((len(groups), len(groups)), int)
  for move, known, counted in zip(moves(subjects, outcome), annotated, outcome.attackable):
    if move and known and counted:
      counts[groups.index(move[0]), groups.index(move[1])] += 1
  return {"groups": groups, "counts": counts.tolist()}


def per_image(subjects: Subjects, outcomes: Outcomes) -> list[dict]:
  """One row an image, for a table."""
  outcome, with_class = outcomes
  annotated = np.asarray(subjects.images.points[..., 2].any(axis=1))
  class_kept, found = kept(subjects, outcome), moves(subjects, outcome)
  rows = []
  for i, image_id in enumerate(subjects.images.image_id):
    moved, rank = found[i], int(outcome.rank[i])
    success = moved is not None
    from_part, to_part = moved if moved and annotated[i] else (None, None)
    rows.append(
      {
        "image_id": image_id,
        "attackable": bool(outcome.attackable[i]),
        "prototypes_tried": int(outcome.num_tried[i]),
        "success_at": rank + 1 if success else None,
        "prototype": int(subjects.prototypes[i, rank]) if success else None,
        "from_part": from_part,
        "to_part": to_part,
        "prediction_kept": bool(class_kept[i]) if success else None,
        "success_with_class_kept_at": int(with_class.rank[i]) + 1 or None,
        "margin": float(with_class.margin[i]) if with_class.rank[i] >= 0 else None,
      }
    )
  return rows


# drop_shared_cells alone is left out: S and an exact complement share no cell.
ABLATION = {
  "paper, S with the cell at the box's border": Rules(inclusive_box=True),
  "paper, S_noisy as a rectangle": Rules(rectangular_target=True),
  "paper, S_noisy as a rectangle, shared cells dropped": Rules(
    rectangular_target=True, drop_shared_cells=True
  ),
  "paper, start noise on the whole image": Rules(start_off_mask=True),
  "paper, S of the test from the image attacked before": Rules(chained_source=True),
  "paper, images dropped where S covers the grid": Rules(drop_covered=True),
}


def ablation_row(setting: str, subjects: Subjects, outcomes: Outcomes) -> dict:
  """One row of the ablation: both kinds of success with all top k prototypes and with the first
  alone, and the share of the first successes that keep the predicted class."""
  top_k, moved = subjects.prototypes.shape[1], outcomes.moved
  rate_at, kept_at = (rates(outcome, top_k) for outcome in outcomes)
  return {
    "setting": setting,
    "rate": rate_at[str(top_k)],
    "rate_first": rate_at["1"],
    "kept": kept_at[str(top_k)],
    "kept_first": kept_at["1"],
    "prediction_kept": statistics.share(
      kept(subjects, moved)[moved.attackable & (moved.rank >= 0)]
    ),
  }
