"""Numbers with the 95% interval that every reported one carries; comparisons of rankings."""

from statistics import NormalDist

import numpy as np


def wilson_interval(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
  """Wilson (1927) score interval for a share of `count` out of `total` independent trials."""
  if total == 0:
    return (0.0, 1.0)
  z = NormalDist().inv_cdf(0.5 + confidence / 2)
  share = count / total
  centre = (share + z * z / (2 * total)) / (1 + z * z / total)
  half = (z / (1 + z * z / total)) * np.sqrt(share * (1 - share) / total + z * z / (4 * total**2))
  # At the ends the bound is the end itself, but for rounding.
  low = 0.0 if count == 0 else float(centre - half)
  return (low, 1.0 if count == total else float(centre + half))


def bootstrap_interval(
  values: np.ndarray, confidence: float = 0.95, *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
  """Percentile bootstrap interval of the mean of `values` [N] (Efron 1979)."""
  values = np.asarray(values, np.float64)
  if values.size == 0:
    return (float("nan"), float("nan"))
  rng = np.random.default_rng(seed)
  means = [values[rng.integers(0, values.size, values.size)].mean() for _ in range(resamples)]
  tail = (1 - confidence) / 2
  low, high = np.quantile(means, [tail, 1 - tail])
  return (float(low), float(high))


def share(successes) -> dict:
  """{value, count, total, interval} of a sequence of booleans, with its Wilson interval."""
  successes = np.asarray(successes, bool)
  count, total = int(successes.sum()), int(successes.size)
  value = count / total if total else None
  interval = list(wilson_interval(count, total)) if total else None
  return {"value": value, "count": count, "total": total, "interval": interval}


def mean(values) -> dict:
  """{value, total, interval} of a sequence of numbers, with its bootstrap interval."""
  values = np.asarray(values, np.float64)
  if not values.size:
    return {"value": None, "total": 0, "interval": None}
  interval = list(bootstrap_interval(values))
  return {"value": float(values.mean()), "total": int(values.size), "interval": interval}


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


def highest(values: np.ndarray, k: int) -> np.ndarray:
  """Columns of the k highest values of each row of [N, P], highest first, int [N, min(k, P)].

  Of equal values the first column comes first.
  """
  return np.argsort(-np.asarray(values), axis=1, kind="stable")[:, :k]


def top_k_overlap(a: np.ndarray, b: np.ndarray, *, k: int) -> np.ndarray:
  """Share of the k highest columns of `a` [N, P] that are among those of `b` [N, P], float [N]."""
  ours, theirs = highest(a, k), highest(b, k)
  return (ours[:, :, None] == theirs[:, None, :]).any(axis=2).mean(axis=1)


def ranks(values: np.ndarray) -> np.ndarray:
  """Rank of each value within its row of [N, P], from 1 up; equal values share their mean rank."""
  values = np.asarray(values)
  order = np.argsort(values, axis=1, kind="stable")
  rising = np.take_along_axis(values, order, axis=1)
  places = np.broadcast_to(np.arange(values.shape[1]), values.shape)
  # Equal values are neighbours now: where each such group starts, and where it ends.
  step = rising[:, 1:] != rising[:, :-1]
  starts, ends = np.pad(step, ((0, 0), (1, 0))), np.pad(step, ((0, 0), (0, 1)))
  first = np.maximum.accumulate(np.where(starts, places, 0), axis=1)
  last = np.where(ends, places, values.shape[1] - 1)
  last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
  found = np.empty(values.shape)
  np.put_along_axis(found, order, (first + last) / 2 + 1, axis=1)
  return found


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Spearman's rank correlation of each row of `a` [N, P] with that of `b` [N, P], float [N].

  Equal values get their mean rank. NaN where a row holds nothing but equal values.
  """
  x, y = (r - r.mean(axis=1, keepdims=True) for r in (ranks(a), ranks(b)))
  product, size = (x * y).sum(axis=1), np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
  return np.divide(product, size, out=np.full(len(size), np.nan), where=size > 0)
