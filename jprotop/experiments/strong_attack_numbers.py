"""The strongest attack in numbers: the record, and how it is counted."""

import dataclasses
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Int

from jprotop import statistics
from jprotop.attacks.aims import MASKS, Aims
from jprotop.attacks.in_turn import Subjects
from jprotop.attacks.strong_cases import Curve, Reached
from jprotop.experiments.attacking import Sample
from jprotop.runs.records import Paired, Record, Share

OFF_SOURCE = "off S"


class Rates(msgspec.Struct, forbid_unknown_fields=True):
  """The shares of images where the prototype moved, and where it did with the class kept."""

  moved: Share
  moved_and_prediction_kept: Share


class Level(msgspec.Struct, forbid_unknown_fields=True):
  """What is reached with an eps or a smaller one."""

  eps: float
  strong: Rates


class Target(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
  """What attacks with noise on one mask reach of the images that have such a target.

  beyond_paper and beyond_control compare images that moved with their class kept.
  """

  target: str
  mask: str
  num_images: int
  strong: Rates
  paper: Rates
  control: Rates
  beyond_paper: Paired
  beyond_control: Paired


class WithoutGradients(msgspec.Struct, forbid_unknown_fields=True):
  """Square attack on the same images; solved: of those that the strong attack missed."""

  queries: int
  square: Rates
  solved: Share


class StrongAttack(Record):
  """The strong attack, beside the paper's and random noise on the same images.

  at k: with the first k prototypes of each image, tried in turn; looks: pictures that one aim may
  take, and that random noise takes.
  """

  strength: str
  restarts: int
  num_steps: int
  looks: int
  seed: int
  budget: dict[str, Any]
  sample: Sample
  num_not_attackable: int
  top_k: int
  strong_at: dict[str, Rates]
  paper_at: dict[str, Rates]
  control_at: dict[str, Rates]
  curve: list[Level]
  by_target: list[Target]
  without_gradients: WithoutGradients | None
  images: list[dict[str, Any]]


def rates(reached: Reached) -> dict:
  """`Rates` of images."""
  return {
    "moved": statistics.share(reached.moved),
    "moved_and_prediction_kept": statistics.share(reached.kept),
  }


@dataclasses.dataclass(frozen=True)
class InRanks:
  """What is reached when an image's prototypes are attacked in turn.

  Attributes:
    moved_at, kept_at: the rank of the first prototype that did; K: none.
    attackable_at: the rank of the first one that can be attacked at all.
  """

  moved_at: Int[np.ndarray, " N"]
  kept_at: Int[np.ndarray, " N"]
  attackable_at: Int[np.ndarray, " N"]
  top_k: int

  def rates_at(self) -> dict[str, dict]:
    """{"1": ..., "K": ...}: `Rates` of the images that k prototypes leave to attack."""
    found = {}
    for k in range(1, self.top_k + 1):
      these = self.attackable_at < k
      found[str(k)] = rates(Reached(self.moved_at[these] < k, self.kept_at[these] < k))
    return found


@dataclasses.dataclass(frozen=True)
class OnMask:
  """What the attacks reach of the images that have one target, with noise on one mask.

  Attributes:
    rows: the images' places among the subjects.
  """

  target: str
  mask: str
  rows: Int[np.ndarray, " n"]
  aims: Aims
  strong: Reached
  paper: Reached
  control: Reached

  def record(self) -> dict:
    """A `Target`."""
    kept = self.strong.kept
    return {
      "target": self.target,
      "mask": self.mask,
      "num_images": len(self.rows),
      **{name: rates(getattr(self, name)) for name in ("strong", "paper", "control")},
      "beyond_paper": statistics.paired_difference(kept, self.paper.kept),
      "beyond_control": statistics.paired_difference(kept, self.control.kept),
    }


def without_gradients(queries: int, white_box: Reached, square: Reached | None) -> dict | None:
  """A `WithoutGradients`, of what both reach of the same images; None without queries."""
  if square is None:
    return None
  return {
    "queries": queries,
    "square": rates(square),
    "solved": statistics.share(square.kept[~white_box.kept]),
  }


def curve_record(found: Curve) -> list[dict]:
  """A `Level` for each eps."""
  return [
    {"eps": eps, "strong": rates(found.reached(place))} for place, eps in enumerate(found.levels)
  ]


def per_image(
  subjects: Subjects, measured: list[OnMask], found: Curve, square: Reached | None
) -> list[dict]:
  """A row for each image, target and mask; what was not measured there is None."""

  def eps_at(places: Int[np.ndarray, " n"], i: int) -> float | None:
    return found.levels[places[i]] if places[i] < len(found.levels) else None

  rows = []
  for on in measured:
    top = on.target == OFF_SOURCE and on.mask == MASKS[0]
    for i, row in enumerate(on.rows):
      rows.append(
        {
          "image_id": subjects.images.image_id[row],
          "prototype": int(on.aims.prototype[i]),
          "target": on.target,
          "mask": on.mask,
          "smallest_eps": eps_at(found.moved_at, i) if top else None,
          "smallest_eps_prediction_kept": eps_at(found.kept_at, i) if top else None,
          **{
            f"{name}_{what}": bool(getattr(getattr(on, name), what)[i])
            for name in ("strong", "paper", "control")
            for what in ("moved", "kept")
          },
          "square_kept": bool(square.kept[i]) if top and square else None,
        }
      )
  return rows
