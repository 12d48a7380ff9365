"""What the results.json of several studies holds: numbers and claims over all of them."""

from typing import Any, Literal

import msgspec


def check_metric(metric: Any) -> None:
  """ValueError where value, count, total and interval contradict each other."""
  value, total, count = metric.value, metric.total, getattr(metric, "count", None)
  if value is None or total == 0:
    if (value, total, metric.interval) != (None, 0, None):
      raise ValueError(f"value {value}, total {total} and interval {metric.interval} do not agree")
    return
  if count is not None and not equal(value, count / total):
    raise ValueError(f"value {value} is not {count}/{total}")
  if metric.interval is None:
    raise ValueError("there is no interval")
  low, high = metric.interval
  if not (low <= value or equal(low, value)) or not (value <= high or equal(value, high)):
    raise ValueError(f"interval {metric.interval} does not hold its value {value}")
  if count is not None and not 0 <= low <= high <= 1:
    raise ValueError(f"interval {metric.interval} leaves [0, 1]")


def equal(a: float, b: float) -> bool:
  """But for rounding."""
  return abs(a - b) <= 1e-6 * max(1.0, abs(a), abs(b))


class OverSeeds(msgspec.Struct, forbid_unknown_fields=True):
  """A number's mean over seeds (or draws), its standard deviation and its interval, in collected
  results; how that was found: Student's t, or seeds and images drawn anew."""

  value: float
  std: float | None
  total: int
  interval: tuple[float, float] | None
  method: Literal["t", "seeds and images"] | None = None
  varied: Literal["seed", "draw"] = "seed"
  unit: Literal["share", "points", "number"] = "share"

  def __post_init__(self):
    if self.interval is not None or self.total != 1:
      check_metric(self)


class NumberOver(msgspec.Struct, forbid_unknown_fields=True):
  """One number of several studies: of each by its name, and over them."""

  experiment: str
  network: str
  number: str
  values: dict[str, float | None]
  over: OverSeeds


class ClaimOver(msgspec.Struct, forbid_unknown_fields=True):
  """One claim of several studies: how many gave it which verdict, and its quantity over them."""

  claim: str
  section: str
  ours: bool
  threshold: float
  direction: str
  margin: float
  verdicts: dict[str, int]
  values: dict[str, float | None]
  over: OverSeeds | None
  verdict: str


class Factor(msgspec.Struct, forbid_unknown_fields=True):
  """Studies of one backbone that differ in one thing, and what they found together."""

  label: str
  varied: Literal["seed", "draw"]
  backbone: str
  studies: list[str]
  claims: list[ClaimOver]
  numbers: list[NumberOver]


class Source(msgspec.Struct, forbid_unknown_fields=True):
  """A study that was collected: its seeds, and the classes that it alters."""

  name: str
  backbone: str
  seed: int
  draw: int | str
  classes: list[str] | None
