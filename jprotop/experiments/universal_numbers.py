"""What universal patterns do, in numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Bool

from jprotop import statistics
from jprotop.runs.records import Paired, Record, Share

# What a pattern may be fitted for, besides a class.
ALL, EACH = "all classes", "each class, its own pattern"


class Pattern(msgspec.Struct, forbid_unknown_fields=True):
  """One pattern on the training images that it was fitted on, and on test images of those classes;
  or each class's own, taken together."""

  fitted_for: str
  moved_fitted: Share
  moved: Share
  control: Share
  moved_minus_control: Paired
  moved_and_prediction_kept: Share


class Universal(Record):
  """Patterns for all images and for those of some classes; the control is one of random signs."""

  seed: int
  budget: dict[str, Any]
  patterns: list[Pattern]


class Seen(NamedTuple):
  """Where prototypes left: of training images by the pattern, of test images by it and by random
  signs; and on which test images the predicted class stayed."""

  moved_fitted: Bool[np.ndarray, " M"]
  moved: Bool[np.ndarray, " N"]
  control: Bool[np.ndarray, " N"]
  kept: Bool[np.ndarray, " N"]


def summarise(seen: Mapping[str, Seen]) -> list[dict]:
  """A row a pattern; after that of all images one more, of the classes' own taken together."""
  rows = [_row(name, each) for name, each in seen.items()]
  own = [each for name, each in seen.items() if name != ALL]
  return [*rows[:1], _row(EACH, _together(own)), *rows[1:]] if own else rows


def _together(seen: Sequence[Seen]) -> Seen:
  return Seen(*(np.concatenate(arrays) for arrays in zip(*seen)))


def _row(name: str, seen: Seen) -> dict:
  return {
    "fitted_for": name,
    "moved_fitted": statistics.share(seen.moved_fitted),
    "moved": statistics.share(seen.moved),
    "control": statistics.share(seen.control),
    "moved_minus_control": statistics.paired_difference(seen.moved, seen.control),
    "moved_and_prediction_kept": statistics.share(seen.moved & seen.kept),
  }
