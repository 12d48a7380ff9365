"""Shares and means with the 95% interval that every reported number carries."""

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
