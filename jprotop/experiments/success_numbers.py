"""App. F.1 and Table 3 in numbers: how often Head on Stomach succeeds, from where to where."""

from typing import Any

import msgspec
import numpy as np
from jaxtyping import Bool

from jprotop import statistics
from jprotop.attacks import cases as attack_cases
from jprotop.attacks.cases import Rules
from jprotop.attacks.in_turn import Outcome, Subjects
from jprotop.data.parts import BACKGROUND, GROUPS
from jprotop.experiments.attacking import Sample
from jprotop.runs.records import Record, Share


class Control(msgspec.Struct, forbid_unknown_fields=True):
  """Random noise of the same size, tried in the same way."""

  num_not_attackable: int
  rate_at: dict[str, Share]


class Protocol(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
  """rate_at k is of the images that k prototypes alone leave to attack, num_images of top_k;
  prediction_kept is of the successful ones, success_and_prediction_kept of all."""

  num_images: int
  num_not_attackable: int
  num_fewer_than_asked: int
  sample: Sample
  top_k: int
  seed: int
  budget: dict[str, Any]
  rate_at: dict[str, Share]
  prediction_kept: Share
  success_and_prediction_kept: Share
  control: Control
  parts: dict[str, Any] | None


class Ablated(msgspec.Struct, forbid_unknown_fields=True):
  """The protocol `paper` with one difference of `authors` switched on."""

  setting: str
  rate: Share
  rate_first: Share
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


def kept(subjects: Subjects, outcome: Outcome) -> Bool[np.ndarray, " N"]:
  """Whether a success left the predicted class as it was; False without a success."""
  return (outcome.rank >= 0) & (outcome.prediction == subjects.prediction)


def summarise(subjects: Subjects, outcome: Outcome, control: Outcome) -> dict:
  """The numbers of one protocol, each with count and interval.

  Args:
    outcome, control: of the attack, and of random noise that was tried in the same way.
  """
  top_k, attackable = subjects.prototypes.shape[1], outcome.attackable
  kept_class, successful = kept(subjects, outcome), attackable & (outcome.rank >= 0)
  return {
    "num_images": int(attackable.sum()),
    "num_not_attackable": int((~attackable).sum()),
    "top_k": top_k,
    "rate_at": rates(outcome, top_k),
    "prediction_kept": statistics.share(kept_class[successful]),
    "success_and_prediction_kept": statistics.share(kept_class[attackable]),
    "control": {
      "num_not_attackable": int((~control.attackable).sum()),
      "rate_at": rates(control, top_k),
    },
    "parts": count_parts(subjects, outcome),
  }


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


def per_image(subjects: Subjects, outcome: Outcome) -> list[dict]:
  """One row an image, for a table."""
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


def ablation_row(setting: str, subjects: Subjects, outcome: Outcome) -> dict:
  """One row of the ablation: the rates with all top k prototypes and with the first alone, and the
  share of the successes that keep the predicted class."""
  top_k = subjects.prototypes.shape[1]
  rate_at, successful = rates(outcome, top_k), outcome.attackable & (outcome.rank >= 0)
  return {
    "setting": setting,
    "rate": rate_at[str(top_k)],
    "rate_first": rate_at["1"],
    "prediction_kept": statistics.share(kept(subjects, outcome)[successful]),
  }
