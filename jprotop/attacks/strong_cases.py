"""The strongest attack over several eps and masks: what each image needs, and each mask allows.

What is reached with a small eps, or a small mask, is reached with a larger one by the same picture:
so each next one is tried only where the ones before did not fully succeed.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int

from jprotop.attacks.aims import Aims
from jprotop.attacks.strong import Setting, Strength, worst_case
from jprotop.errors import InputError


@dataclasses.dataclass(frozen=True)
class Reached:
  """What attacks reached in N images.

  Attributes:
    moved: the prototype is found in S_noisy.
    kept: and that in a picture of which the class is predicted that was before.
  """

  moved: Bool[np.ndarray, " N"]
  kept: Bool[np.ndarray, " N"]

  @classmethod
  def nothing(cls, count: int) -> "Reached":
    return cls(np.zeros(count, bool), np.zeros(count, bool))

  def plus(self, rows: Int[np.ndarray, " n"], more: "Reached") -> "Reached":
    """With what was reached in some of the images besides."""
    moved, kept = self.moved.copy(), self.kept.copy()
    moved[rows] |= more.moved
    kept[rows] |= more.kept
    return Reached(moved, kept)


@dataclasses.dataclass(frozen=True)
class Curve:
  """The smallest eps of each of N aims.

  Attributes:
    levels: the eps that were tried, the smallest first.
    moved_at, kept_at: the place among them of the first that moved the prototype, and that did so
      with the predicted class as it was; len(levels): none.
    image: the attacked picture: of `kept_at`, else of `moved_at`, else of the last level.
  """

  levels: tuple[float, ...]
  moved_at: Int[np.ndarray, " N"]
  kept_at: Int[np.ndarray, " N"]
  image: Float32[np.ndarray, "N S S 3"]

  def reached(self, place: int = -1) -> Reached:
    """With the eps at that place, or a smaller one."""
    last = range(len(self.levels))[place]
    return Reached(self.moved_at <= last, self.kept_at <= last)


def curve(
  setting: Setting, aims: Aims, strength: Strength, mask: str, levels: Sequence[float]
) -> Curve:
  """Attacks from the smallest eps to the largest: each next one those that have not moved yet.

  An aim is tried again until its class is kept, too.
  """
  none = len(levels)
  moved_at, kept_at = np.full(len(aims), none), np.full(len(aims), none)
  image = aims.image.copy()
  for place, eps in enumerate(levels):
    rows = np.flatnonzero(kept_at == none)
    if not rows.size:
      break
    at = dataclasses.replace(setting, eps=eps)
    found = worst_case(at, aims.of(rows), strength, mask, title=f"eps {255 * eps:.3g}/255")
    first = found.moved & (moved_at[rows] == none)
    moved_at[rows[first]], kept_at[rows[found.kept]] = place, place
    # What moved with a smaller eps stays, unless the class is kept now.
    better = found.kept | (moved_at[rows] >= place)
    image[rows[better]] = found.image[better]
  return Curve(tuple(levels), moved_at, kept_at, image)


def by_mask(
  setting: Setting, aims: Aims, strength: Strength, known: Reached | None = None
) -> dict[str, Reached]:
  """What is reached with each of the strength's masks; one that gives no more room is left out.

  Args:
    known: with the first mask, where that was measured already.
  """
  so_far, room, by = Reached.nothing(len(aims)), None, {}
  for mask in strength.masks:
    pixels = aims.pixels(mask)
    if room is not None and (pixels == room).all():
      continue
    room, rows = (
      pixels,
      np.flatnonzero(~so_far.kept),
    )  # A larger mask allows what a smaller one did.
    if by or known is None:
      found = worst_case(setting, aims.of(rows), strength, mask, title=f"noise on {mask}")
      so_far = so_far.plus(rows, Reached(found.moved, found.kept))
    else:
      so_far = known
    by[mask] = so_far
  return by


def levels_of(text: str, eps: float) -> tuple[float, ...]:
  """The eps of a curve: those below `eps` of a list in 1/255, such as "0.5,1,2,4", then `eps`.

  Raises:
    InputError: one of them is no positive number.
  """
  try:
    given = [float(one) / 255 for one in text.split(",") if one.strip()]
  except ValueError:
    given = [-1.0]
  if not all(0 < one <= 1 for one in given):
    raise InputError(
      f"measure.strong_attack.curve={text!r} must be numbers from 0 to 255 with commas between, in "
      "1/255, such as 0.5,1,2,4"
    )
  return (*sorted({one for one in given if one < eps}), eps)
