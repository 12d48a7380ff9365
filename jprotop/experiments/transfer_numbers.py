"""How often noise transfers from one network to another, and what that says of gradients."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Bool

from jprotop import statistics
from jprotop.prototypes.accuracy import packed
from jprotop.runs.records import Paired, Record, Share


class Cell(msgspec.Struct, forbid_unknown_fields=True):
  """Noise made on one network as another one sees it; `hits` are the images that it moves."""

  source: str
  victim: str
  moved: Share
  control: Share
  moved_minus_control: Paired
  moved_and_prediction_kept: Share
  hits: str


class Missed(msgspec.Struct, forbid_unknown_fields=True):
  """Images that the attack on the victim itself did not move, and how many of them others did."""

  victim: str
  missed: int
  moved_by_others: int


class Transfer(Record):
  """The matrix of some networks on the same images; images are their places in the test set.

  Of asked-for images so many were looked at, all networks classify correctly, and were left where
  no network's S covers the whole map.
  """

  networks: list[str]
  images: list[int]
  asked: int
  looked_at: int
  correct: int
  seed: int
  budget: dict[str, Any]
  cells: list[Cell]
  missed: list[Missed]


def cell(
  source: str,
  victim: str,
  moved: Bool[np.ndarray, " N"],
  control: Bool[np.ndarray, " N"],
  kept: Bool[np.ndarray, " N"],
) -> dict:
  """One cell of the matrix.

  Args:
    moved, control: on which images the victim's prototype left, by the noise and by random noise.
    kept: on which the victim sees the class that it saw before.
  """
  return {
    "source": source,
    "victim": victim,
    "moved": statistics.share(moved),
    "control": statistics.share(control),
    "moved_minus_control": statistics.paired_difference(moved, control),
    "moved_and_prediction_kept": statistics.share(moved & kept),
    "hits": packed(moved),
  }


def missed(
  names: Sequence[str], moved: Mapping[tuple[str, str], Bool[np.ndarray, " N"]]
) -> list[dict]:
  """Of each victim, what the attack on itself missed and noise of another network moved.

  Args:
    moved: by source and victim.
  """
  found = []
  for victim in names:
    own = moved[victim, victim]
    others = [moved[source, victim] for source in names if source != victim]
    by_others = np.any(others, axis=0) if others else np.zeros_like(own)
    found.append(
      {
        "victim": victim,
        "missed": int((~own).sum()),
        "moved_by_others": int((~own & by_others).sum()),
      }
    )
  return found
