"""Numbers with the 95% interval that every reported one carries; comparisons of rankings."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy  # Not scipy.stats, which takes a second to load: its first use does that.
from jaxtyping import Float, Int, Real, Shaped
from numpy.typing import ArrayLike

Verdict = Literal["holds", "reversed", "no difference", "undecided"]
UNTESTED = "untested"  # Of a claim about what was not there to be looked at.

# Values that the bootstrap draws at once; more would need more memory and be no faster.
_DRAWN_AT_ONCE = 1 << 16


def wilson_interval(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
  """Wilson (1927) score interval for a share of `count` out of `total` independent trials."""
  if total == 0:
    return (0.0, 1.0)
  # Tested against itself: the p-value, which nobody asks for, needs no search then.
  found = scipy.stats.binomtest(count, total, p=count / total)
  low, high = found.proportion_ci(confidence, method="wilson")
  return (float(low), float(high))


def bootstrap_interval(
  values: ArrayLike,
  confidence: float = 0.95,
  *,
  resamples: int = 2000,
  seed: int = 0,
  weights: ArrayLike | None = None,
) -> tuple[float, float]:
  """Percentile bootstrap interval of the mean of values (Efron 1979).

  NaN at both ends where there are no values, or one is not finite. Equal values, or a single one,
  have an interval of no width.

  Args:
    weights: positive [N], of a weighted mean; each goes with its value wherever it is drawn.
  """
  values = np.asarray(values, np.float64)
  if not values.size or not np.isfinite(values).all():
    return (float("nan"), float("nan"))
  if (values == values[0]).all():
    return (float(values.mean()), float(values.mean()))
  low, high = scipy.stats.bootstrap(
    (values,) if weights is None else (values, np.asarray(weights, np.float64)),
    np.mean if weights is None else _weighted_mean,
    method="percentile",
    confidence_level=confidence,
    n_resamples=resamples,
    batch=max(1, _DRAWN_AT_ONCE // values.size),
    vectorized=True,
    paired=weights is not None,
    rng=np.random.default_rng(seed),
  ).confidence_interval
  return (float(low), float(high))


def _weighted_mean(
  values: Real[np.ndarray, "*n"], weights: Shaped[np.ndarray, "*n"], axis: int = -1
) -> Float[np.ndarray, "..."] | np.floating:
  return (values * weights).sum(axis=axis) / weights.sum(axis=axis)


def share(successes: ArrayLike) -> dict:
  """{value, count, total, interval} of a sequence of booleans, with its Wilson interval."""
  successes = np.asarray(successes, bool)
  count, total = int(successes.sum()), successes.size
  value = count / total if total else None
  interval = list(wilson_interval(count, total)) if total else None
  return {"value": value, "count": count, "total": total, "interval": interval}


def mean(values: ArrayLike, weights: ArrayLike | None = None) -> dict:
  """{value, total, interval} of a sequence of numbers, with its bootstrap interval.

  Args:
    weights: positive, one a number; None: all are equal.
  """
  values = np.asarray(values, np.float64)
  if not values.size:
    return {"value": None, "total": 0, "interval": None}
  interval = list(bootstrap_interval(values, weights=weights))
  value = values.mean() if weights is None else _weighted_mean(values, np.asarray(weights))
  return {"value": float(value), "total": values.size, "interval": interval}


def t_interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float] | None:
  """Student's t interval of the mean of independent values; None of fewer than two."""
  values = np.asarray(values, np.float64)
  if values.size < 2:
    return None
  point = scipy.stats.t.ppf(0.5 + confidence / 2, values.size - 1)
  half = float(point * np.std(values, ddof=1) / values.size**0.5)
  return (float(values.mean() - half), float(values.mean() + half))


def crossed_interval(
  values: Shaped[np.ndarray, "S N"],
  confidence: float = 0.95,
  *,
  resamples: int = 2000,
  seed: int = 0,
) -> tuple[float, float]:
  """Percentile interval of the mean of S rows by N columns that are crossed, such as networks by
  the images that all of them see: rows and columns are drawn anew, each on their own.

  The pigeonhole bootstrap (Owen, Annals of Applied Statistics 1, 2007, 386-411), whose variance is
  if anything too large.
  """
  values, (rows, columns) = values.astype(np.float64), values.shape
  rng = np.random.default_rng(seed)
  means = []
  at_once = max(1, 16 * _DRAWN_AT_ONCE // columns)
  for start in range(0, resamples, at_once):
    count = min(at_once, resamples - start)
    of_rows, of_columns = (_times_drawn(rng, size, count) for size in (rows, columns))
    means.append(((of_rows @ values) * of_columns).sum(axis=1) / values.size)
  tail = 50 * (1 - confidence)
  low, high = np.percentile(np.concatenate(means), [tail, 100 - tail])
  return (float(low), float(high))


def _times_drawn(
  rng: np.random.Generator, size: int, count: int
) -> Float[np.ndarray, "{count} {size}"]:
  """How often each of `size` things is drawn in `count` samples of as many with replacement."""
  drawn = rng.integers(0, size, (count, size)) + size * np.arange(count)[:, None]
  return np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size).astype(np.float64)


def difference_interval(a: dict, b: dict, *, factor: float = 1.0) -> tuple[float, float] | None:
  """95% interval of a - factor * b for two independent estimates {"value", "interval"}.

  MOVER: each side's own interval says how far that estimate may be off (Newcombe 1998, method 10,
  for two shares; Zou and Donner 2008). None where either was estimated from nothing.
  """
  if a["value"] is None or b["value"] is None:
    return None
  (low, high), scaled = a["interval"], factor * b["value"]
  scaled_low, scaled_high = sorted(factor * end for end in b["interval"])
  difference = a["value"] - scaled
  below = np.hypot(a["value"] - low, scaled_high - scaled)
  above = np.hypot(high - a["value"], scaled - scaled_low)
  return (float(difference - below), float(difference + above))


def tango_interval(
  only_a: int, only_b: int, total: int, confidence: float = 0.95
) -> tuple[float, float]:
  """Tango's (1998) score interval of the difference a - b of two shares of the same things.

  Args:
    only_a, only_b: how many of `total` count for a and not for b, and the other way round.
  """
  if total == 0:
    return (-1.0, 1.0)
  z = float(scipy.stats.norm.ppf(0.5 + confidence / 2))
  estimate = (only_a - only_b) / total

  def excess(difference: float) -> float:
    return _tango_score(difference, only_a, only_b, total) ** 2 - z * z

  # The score is 0 at the estimate, and larger than z before it reaches -1 and 1.
  def root(end: float) -> float:
    if abs(estimate - end) <= _NEAR:
      return estimate
    found = scipy.optimize.root_scalar(excess, bracket=sorted((estimate, end)), xtol=1e-12)
    return float(found.root)

  return (root(-1 + _NEAR), root(1 - _NEAR))


_NEAR = 1e-9


def _tango_score(difference: float, only_a: int, only_b: int, total: int) -> float:
  """The distance of the counts from a difference, in standard errors under it (Tango's Eq. 7)."""
  a = 2 * total
  b = -only_a - only_b + (2 * total - only_a + only_b) * difference
  c = -only_b * difference * (1 - difference)
  share_b = (np.sqrt(max(b * b - 4 * a * c, 0)) - b) / (2 * a)
  variance = total * (2 * share_b + difference * (1 - difference))
  distance = only_a - only_b - total * difference
  if variance <= 0:  # Only where no count speaks against the difference.
    return 0.0 if abs(distance) < _NEAR else float(np.sign(distance) * 1e9)
  return float(distance / np.sqrt(variance))


def mcnemar_p(only_a: int, only_b: int) -> float:
  """McNemar's exact p: that two shares of the same things are equal, two-sided."""
  discordant = only_a + only_b
  return float(scipy.stats.binomtest(only_a, discordant).pvalue) if discordant else 1.0


def paired_difference(a: ArrayLike, b: ArrayLike) -> dict:
  """The difference a - b of two shares of the same things, from a boolean for each of them.

  Returns:
    {value, total, only_a, only_b, interval, p}: Tango's interval and McNemar's exact p.
  """
  a, b = (np.asarray(x, bool) for x in (a, b))
  only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
  counts = {"total": a.size, "only_a": only_a, "only_b": only_b}
  if not a.size:
    return {"value": None, **counts, "interval": None, "p": None}
  value = (only_a - only_b) / a.size
  interval = list(tango_interval(only_a, only_b, a.size))
  return {"value": value, **counts, "interval": interval, "p": mcnemar_p(only_a, only_b)}


def holm(p: ArrayLike) -> Float[np.ndarray, " N"]:
  """p values adjusted by Holm (1979), so that all may be judged by one level."""
  p = np.asarray(p, np.float64)
  order = np.argsort(p, kind="stable")
  steps = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
  adjusted = np.empty_like(p)
  adjusted[order] = np.minimum(steps, 1)
  return adjusted


def decide(
  interval: Sequence[float] | None, threshold: float, direction: str, margin: float
) -> Verdict:
  """What an interval says of the claim that a quantity lies "above" (or "below") a threshold.

  Args:
    margin: what is too small to matter, at least 0, in the quantity's unit.

  Returns:
    "holds" where all of the interval lies beyond the threshold; "reversed" where all of it lies
    more than the margin on the other side; "no difference" where it lies within the margin around
    the threshold; else, or without an interval, "undecided". Ends that touch decide nothing.
  """
  if direction not in ("above", "below"):
    raise ValueError(f"direction={direction!r} is not known; it must be above or below")
  if interval is None:
    return "undecided"
  low, high = (end - threshold for end in interval)
  if direction == "below":
    low, high = -high, -low
  if low > 0:
    return "holds"
  if high < -margin:
    return "reversed"
  return "no difference" if -margin < low and high < margin else "undecided"


def detectable(
  interval: Sequence[float] | None, power: float = 0.8, confidence: float = 0.95
) -> float | None:
  """The smallest distance from a threshold that is found with a power by intervals of this width.

  An interval of half width z s leaves out a threshold that is (z + z') s away in `power` of all
  samples, where s is the standard error, z the normal quantile of the confidence and z' that of
  the power (Cohen 1988): 1.43 half widths for 80% and 95%. None without an interval, or where it
  has no width.
  """
  if interval is None or interval[0] >= interval[1]:
    return None
  z, extra = (float(scipy.stats.norm.ppf(q)) for q in (0.5 + confidence / 2, power))
  return (interval[1] - interval[0]) / 2 * (z + extra) / z


def top_columns(values: Real[np.ndarray, "N P"], k: int) -> Int[np.ndarray, "N min({k},P)"]:
  """Columns of the k highest values of each row, highest first; of equals the first column."""
  return np.argsort(-values, axis=1, kind="stable")[:, :k]


def top_k_overlap(
  a: Real[np.ndarray, "N P"], b: Real[np.ndarray, "N P"], *, k: int
) -> Float[np.ndarray, " N"]:
  """Share of the k highest columns of each row of `a` that are among those of `b`."""
  ours, theirs = top_columns(a, k), top_columns(b, k)
  return (ours[:, :, None] == theirs[:, None, :]).any(axis=2).mean(axis=1)


def ranks(values: Real[np.ndarray, "N P"]) -> Float[np.ndarray, "N P"]:
  """Rank of each value within its row, from 1 up; equal values share their mean rank."""
  return scipy.stats.rankdata(values, axis=1)


def rank_correlation(
  a: Real[np.ndarray, "N P"], b: Real[np.ndarray, "N P"]
) -> Float[np.ndarray, " N"]:
  """Spearman's rank correlation of each row of `a` with that of `b`.

  Equal values get their mean rank. NaN where a row holds nothing but equal values, or a NaN.
  """
  varies = (a.max(axis=1) > a.min(axis=1)) & (b.max(axis=1) > b.min(axis=1))
  found = np.full(len(a), np.nan)
  if varies.any():
    # spearmanrho computes in the precision of what it is given.
    x, y = (values[varies].astype(np.float64) for values in (a, b))
    found[varies] = scipy.stats.spearmanrho(x, y, axis=1).statistic
  return found
