"""A claim about a number: whether it lies above or below a threshold, decided by its interval.

Each verdict is a row as jprotop.experiments.claims describes it.
"""

from jprotop import statistics
from jprotop.report.wording import format_mean, format_share, interval_of

# A bootstrap interval of fewer values is too narrow to decide by.
_FEWEST = 10


def of_metric(
  claim: str,
  section: str,
  metric: tuple[str, dict | None],
  *,
  threshold: float = 0.0,
  direction: str = "above",
  note: str = "",
  ours: bool = False,
) -> list[dict]:
  """The claim that a metric (label, numbers) lies above or below a threshold, as a list of one.

  An empty list where the numbers are None: they were not measured. `ours`: the paper does not say
  so.
  """
  label, numbers = metric
  if numbers is None:
    return []
  evidence = f"{label}: {text(numbers)}, claimed {direction} {threshold:g}{note}"
  row = _row(claim, section, evidence, numbers, threshold, direction, ours)
  return [_unless_weak(row, numbers)]


def of_difference(
  claim: str,
  section: str,
  a: tuple[str, dict | None],
  b: tuple[str, dict | None],
  *,
  factor: float = 1.0,
  direction: str = "above",
  note: str = "",
  ours: bool = False,
) -> list[dict]:
  """The claim that a - factor * b, of two metrics (label, numbers), lies above or below 0.

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
    f"{said}, claimed {direction} 0{note}"
  )
  row = _row(claim, section, evidence, difference, 0.0, direction, ours)
  return [_unless_weak(row, of_a, of_b)]


def closes(
  claim: str, after: tuple[str, dict | None], before: tuple[str, dict | None]
) -> list[dict]:
  """That less than half of a gap is left, on either side of 0; undecided without a gap to close.

  Both sides must agree, so that the row is about the one that agrees less.
  """
  sides = [
    of_difference(
      claim,
      "App. F.2",
      after,
      before,
      factor=factor,
      direction=direction,
      note="; the threshold is ours",
      ours=True,
    )
    for factor, direction in ((0.5, "below"), (-0.5, "above"))
  ]
  if before[1] is None or not all(sides):
    return []
  (not_closed,), (overshot,) = sides
  row = min(not_closed, overshot, key=lambda side: [False, "undecided", True].index(side["holds"]))
  if row is overshot:
    row["evidence"] += "; a gap to the other side is none that is closed"
  if statistics.decide(before[1]["interval"], 0, "above") is not True:
    row["holds"] = "undecided"
    row["evidence"] += "; without augmentation no gap was found that could be closed"
  return [row]


def _row(
  claim: str,
  section: str,
  evidence: str,
  numbers: dict,
  threshold: float,
  direction: str,
  ours: bool,
) -> dict:
  return {
    "claim": claim,
    "section": section,
    "ours": ours,
    "evidence": evidence,
    "quantity": numbers["value"],
    "interval": numbers["interval"],
    "threshold": threshold,
    "direction": direction,
    "holds": statistics.decide(numbers["interval"], threshold, direction),
  }


def _unless_weak(row: dict, *numbers: dict) -> dict:
  """The row, left undecided where it rests on no image, or on a bootstrap interval that means
  little; its evidence then says what is missing.

  A mean over very few images, or over images that all have one value, has an interval of almost or
  exactly no width. Shares have Wilson intervals, which know better.
  """
  reasons = dict.fromkeys(map(_weakness, numbers))
  why = "; ".join(reason for reason in reasons if reason)
  if not why:
    return row
  return {**row, "holds": "undecided", "evidence": f"{row['evidence']}; left undecided: {why}"}


def _weakness(numbers: dict) -> str:
  """Why a share's or a mean's interval decides nothing, and what to do; nothing where it does."""
  if numbers["value"] is None:
    return "there is no such image; measure more"
  if "count" in numbers:
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
  """A share in percent or a mean, with its count and interval."""
  return format_share(metric) if "count" in metric else format_mean(metric, digits=3)
