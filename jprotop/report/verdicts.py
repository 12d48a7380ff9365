"""A claim about a number: whether it lies above or below a threshold, decided by its interval.

Each verdict is a row as `jprotop.runs.records.Claim` describes it. Every claim has a margin, what
is too small to matter, in its quantity's unit; `jprotop.statistics.decide` has the rule.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from jprotop import statistics
from jprotop.report.wording import format_mean, format_share, interval_of


class Rule(NamedTuple):
  """On which side of a threshold a number is claimed to lie, and what is too small to matter."""

  margin: float
  threshold: float = 0.0
  direction: str = "above"

  def decide(self, interval: Sequence[float] | None) -> statistics.Verdict:
    return statistics.decide(interval, self.threshold, self.direction, self.margin)

  def __str__(self) -> str:
    return f"claimed {self.direction} {self.threshold:g} (margin {self.margin:g})"


class Premise(NamedTuple):
  """What a claim takes for granted: that a difference, as metrics have it, is above a threshold.

  Attributes:
    what: it is, in words.
    numbers: None where it was not measured.
    otherwise: why the claim is untested, where the interval does not lie above the threshold.
  """

  what: str
  numbers: dict | None
  threshold: float
  otherwise: str


class PerImage(NamedTuple):
  """Values of images, to be compared with those of the same images elsewhere.

  Attributes:
    label: what they are.
    values: booleans or numbers, in one order of the images; NaN: an image has none. None: they
      were not measured, or not of the same images.
    numbers: their share or mean, as the evidence shows it; None: it is computed.
  """

  label: str
  values: Shaped[np.ndarray, " N"] | None
  numbers: dict | None = None

  @property
  def summary(self) -> dict:
    if self.numbers is not None or self.values is None:
      return self.numbers or statistics.mean([])
    return _summary(self.values)

  def __str__(self) -> str:
    return f"{self.label}: {text(self.summary)}"


def _summary(values: Shaped[np.ndarray, " N"]) -> dict:
  if values.dtype == bool:
    return statistics.share(values)
  return statistics.mean(values[~np.isnan(values)])


# A bootstrap interval of fewer values is too narrow to decide by.
_FEWEST = 10
# Of two sides of one claim, the one that agrees less is shown.
_WORST_FIRST = ("reversed", "no difference", "undecided", "holds")


def of_metric(
  claim: str,
  section: str,
  metric: tuple[str, dict | None],
  rule: Rule,
  *,
  note: str = "",
  ours: bool = False,
) -> list[dict]:
  """The claim about a metric (label, numbers) by a rule, as a list of one.

  An empty list where the numbers are None: they were not measured. A paired difference has its p
  beside the verdict. `ours`: the paper does not say so.
  """
  label, numbers = metric
  if numbers is None:
    return []
  evidence = f"{label}: {text(numbers)}, {rule}{note}"
  row = _unless_weak(_row((claim, section, ours), evidence, numbers, rule), numbers)
  return [{**row, "p": numbers["p"]} if "p" in numbers else row]


def of_difference(
  claim: str,
  section: str,
  a: tuple[str, dict | None],
  b: tuple[str, dict | None],
  rule: Rule,
  *,
  factor: float = 1.0,
  note: str = "",
  ours: bool = False,
) -> list[dict]:
  """The claim about a - factor * b, of two metrics (label, numbers), by a rule.

  Two metrics of the same images are taken as independent. That makes the interval a little wide
  where they are positively correlated, and too narrow where negatively; with a factor below 0, a
  sum, it is the other way round.
  """
  (label_a, of_a), (label_b, of_b) = a, b
  if of_a is None or of_b is None:
    return []
  interval = statistics.difference_interval(of_a, of_b, factor=factor)
  value = None if interval is None else of_a["value"] - factor * of_b["value"]
  difference = {"value": value, "interval": interval and list(interval)}
  said = format_mean(difference, digits=3)
  if value is not None and None in (interval_of(of_a), interval_of(of_b)):
    said = f"{value:.3f} (no interval)"
  second = "the second" if factor == 1 else f"{abs(factor):g} x the second"
  sign = "plus" if factor < 0 else "minus"
  evidence = (
    f"{label_a}: {text(of_a)}; {label_b}: {text(of_b)}; the first {sign} {second}: "
    f"{said}, {rule}{note}"
  )
  row = _row((claim, section, ours), evidence, difference, rule)
  return [_unless_weak(row, of_a, of_b)]


def of_paired(
  claim: str,
  section: str,
  a: PerImage,
  b: PerImage,
  rule: Rule,
  *,
  factor: float = 1.0,
  note: str = "",
  ours: bool = False,
) -> list[dict]:
  """The claim about a - factor * b, image by image, by a rule.

  Two shares have Tango's interval and McNemar's p; anything else the bootstrap's of the mean over
  the images that both have a value of.
  """
  if a.values is None or b.values is None or len(a.values) != len(b.values):
    return []
  if factor == 1 and a.values.dtype == b.values.dtype == bool:
    difference = statistics.paired_difference(a.values, b.values)
  else:
    difference = _summary(a.values.astype(float) - factor * b.values.astype(float))
  second = "the second" if factor == 1 else f"{abs(factor):g} x the second"
  sign = "plus" if factor < 0 else "minus"
  label = f"{a}; {b}; image by image the first {sign} {second}"
  return of_metric(claim, section, (label, difference), rule, note=note, ours=ours)


def supposing(premise: Premise, rows: Sequence[dict]) -> list[dict]:
  """The claims, which are "untested" unless their premise is met; their evidence says which."""
  what, numbers, threshold, reason = premise
  interval = numbers and numbers["interval"]
  met = interval is not None and interval[0] > threshold
  stated = {
    "premise": what,
    "quantity": numbers and numbers["value"],
    "interval": interval,
    "threshold": threshold,
    "reason": "" if met else reason,
  }
  found = "not measured" if numbers is None else text(numbers)
  note = f"; premise, {what}: {found}, needed above {threshold:g}" + ("" if met else f": {reason}")
  verdict = {} if met else {"verdict": statistics.UNTESTED}
  return [{**row, "premise": stated, "evidence": row["evidence"] + note, **verdict} for row in rows]


def of_pairs(difference: dict) -> str:
  """A paired difference in points, with its interval, its discordant images and its p."""
  if difference["value"] is None:
    return "n/a (n = 0)"
  low, high = (100 * end for end in difference["interval"])
  return (
    f"{100 * difference['value']:.1f} points (n = {difference['total']}; 95% CI {low:.1f} to "
    f"{high:.1f}; {difference['only_a']} images count for the first alone, "
    f"{difference['only_b']} for the second alone, McNemar p = {difference['p']:.2g})"
  )


def closes(claim: str, after: PerImage, before: PerImage, *, margin: float) -> list[dict]:
  """That less than half of a gap is left, on either side of 0; undecided without a gap to close.

  Both sides must agree, so that the row is about the one that agrees less.
  """
  sides = [
    of_paired(
      claim,
      "App. F.2",
      after,
      before,
      Rule(margin, direction=direction),
      factor=factor,
      note="; the threshold is ours",
      ours=True,
    )
    for factor, direction in ((0.5, "below"), (-0.5, "above"))
  ]
  if before.values is None or not all(sides):
    return []
  (not_closed,), (overshot,) = sides
  row = min(not_closed, overshot, key=lambda side: _WORST_FIRST.index(side["verdict"]))
  if row is overshot:
    row["evidence"] += "; a gap to the other side is none that is closed"
  if Rule(margin).decide(before.summary["interval"]) != "holds":
    row["verdict"] = "undecided"
    row["evidence"] += "; without augmentation no gap was found that could be closed"
  return [row]


def _row(what: tuple[str, str, bool], evidence: str, numbers: dict, rule: Rule) -> dict:
  """The verdict on a claim: its words, its section, and whether it is ours."""
  claim, section, ours = what
  return {
    "claim": claim,
    "section": section,
    "ours": ours,
    "evidence": evidence,
    "quantity": numbers["value"],
    "interval": numbers["interval"],
    **rule._asdict(),
    "verdict": rule.decide(numbers["interval"]),
    "detectable": statistics.detectable(numbers["interval"]),
  }


def _unless_weak(row: dict, *numbers: dict) -> dict:
  """The row, left undecided where it rests on no image, or on a bootstrap interval that means
  little; its evidence then says what is missing.

  A mean over very few images, or over images that all have one value, has an interval of almost or
  exactly no width. Shares have intervals (Wilson, Tango)
  that know better.
  """
  reasons = dict.fromkeys(map(_weakness, numbers))
  why = "; ".join(reason for reason in reasons if reason)
  if not why:
    return row
  return {**row, "verdict": "undecided", "evidence": f"{row['evidence']}; left undecided: {why}"}


def _weakness(numbers: dict) -> str:
  """Why a share's or a mean's interval decides nothing, and what to do; nothing where it does."""
  if numbers["value"] is None:
    return "there is no such image; measure more"
  if "count" in numbers or "only_a" in numbers:
    return ""
  total, (low, high) = numbers["total"], numbers["interval"]
  if total < _FEWEST:
    images = "1 image" if total == 1 else f"{total} images"
    return f"the mean is over {images}, and at least {_FEWEST} are needed; measure more"
  if low == high:
    return (
      f"all {total} images have the same value, so the interval has no width; measure more, or "
      "other, images"
    )
  return ""


def text(metric: dict) -> str:
  """A share in percent, a paired difference in points or a mean, with its count and interval."""
  if "only_a" in metric:
    return of_pairs(metric)
  return format_share(metric) if "count" in metric else format_mean(metric, digits=3)
