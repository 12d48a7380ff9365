"""The number that a metric gives: its value, what it rests on, and its 95% interval."""

import dataclasses
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Bool, Real, Shaped

from jprotop import statistics

Unit = Literal["image", "prototype"]
Kind = TypeVar("Kind", bound="Estimate")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Estimate:
  """A share or a mean; metrics with more to tell have a class of their own below this one.

  Attributes:
    value: a fraction, not a percentage, unless the metric says otherwise; None: nothing to count.
    total: how many units it is over.
    interval: 95%. Wilson's of a share; of a mean the percentile bootstrap over its units.
    unit: of what the interval is a sample: of images, for a network that is given; or of
      prototypes, where each has one number and all images went into it.
    count: how many of the units, of a share; None of a mean.
  """

  value: float | None
  total: int
  interval: tuple[float, float] | None
  unit: Unit
  count: int | None = None

  @classmethod
  def of_share(
    cls: type[Kind], successes: Bool[np.ndarray, " M"], unit: Unit, **found: Any
  ) -> Kind:
    """A share of the units, from whether each counts; `found` are the further fields of a class."""
    return cls._of(statistics.share(successes), unit, found)

  @classmethod
  def of_mean(
    cls: type[Kind],
    values: Real[np.ndarray, " M"],
    unit: Unit,
    weights: Real[np.ndarray, " M"] | None = None,
    **found: Any,
  ) -> Kind:
    """A mean over the units, from numbers. Those that are NaN have none, and do not count."""
    values = np.asarray(values, np.float64)
    there = ~np.isnan(values)
    weights = None if weights is None else np.asarray(weights)[there]
    return cls._of(statistics.mean(values[there], weights), unit, found)

  @classmethod
  def over_images(
    cls: type[Kind],
    values: Shaped[np.ndarray, "N K"],
    weights: Shaped[np.ndarray, "N K"],
    **found: Any,
  ) -> Kind:
    """The weighted mean of the numbers of images, each image's taken together.

    A number whose weight is 0 does not count, whatever it is. Booleans are 0 and 1.
    """
    total = weights.sum(axis=1, dtype=np.float64)
    some = total > 0
    summed = (np.where(weights > 0, values, 0) * weights).sum(axis=1)
    return cls.of_mean(summed[some] / total[some], "image", weights=total[some], **found)

  @classmethod
  def _of(cls: type[Kind], numbers: dict, unit: Unit, found: dict) -> Kind:
    low_high = numbers.pop("interval")
    interval = None if low_high is None else tuple(low_high)
    return cls(interval=interval, unit=unit, **numbers, **found)

  def as_record(self) -> dict:
    """{value, total, interval}, and count of a share: the form of results.json."""
    interval = None if self.interval is None else list(self.interval)
    record = {"value": self.value, "total": self.total, "interval": interval}
    return record if self.count is None else {**record, "count": self.count}
