"""Numbers as text: none goes without its count and its interval.

A metric is a dict as results.json holds it: a share {"value", "count", "total", "interval"}, a
mean {"value", "total", "interval"}, or a mean over seeds, which has a "std" too; the interval is
the 95% one, [low, high], or absent. A mean of one value has none, whatever stands there: how far it
could be off cannot be seen from it. A share of one image has Wilson's, a wide one.
"""

import math
from collections.abc import Mapping
from typing import Any

# Of a mean: one value says nothing of how far it could be off.
ONE = "n = 1, no interval"
# Of a mean over seeds: what it is multiplied by, digits, sign, and what stands between two.
_UNITS = {
  "share": (100, 1, "%", "-"),
  "points": (100, 1, " points", " to "),
  "number": (1, 3, "", " to "),
}


def format_share(metric: Mapping[str, Any], *, digits: int = 1) -> str:
  """'95.0% (19/20; 95% CI 76.4-99.1%)'; 'n/a (0/0)' where nothing was counted."""
  count, total = metric["count"], metric["total"]
  value = metric.get("value", count / total if total else None)
  if is_missing(value):
    return f"n/a ({count}/{total})"
  text = f"{100 * value:.{digits}f}% ({count}/{total}"
  if interval := interval_of(metric):
    text += f"; 95% CI {100 * interval[0]:.{digits}f}-{100 * interval[1]:.{digits}f}%"
  return text + ")"


def format_mean(metric: Mapping[str, Any], *, digits: int = 2) -> str:
  """'2.61 (n = 20; 95% CI 2.10 to 3.02)'; '2.61 (n = 1, no interval)'; 'n/a (n = 0)' where there is
  nothing to average."""
  value, notes = metric.get("value"), []
  if "total" in metric:
    notes.append(ONE if metric["total"] == 1 else f"n = {metric['total']}")
  if not is_missing(value) and (interval := interval_of(metric)):
    notes.append(f"95% CI {interval[0]:.{digits}f} to {interval[1]:.{digits}f}")
  text = "n/a" if is_missing(value) else f"{value:.{digits}f}"
  return f"{text} ({'; '.join(notes)})" if notes else text


def format_seeds(metric: Mapping[str, Any]) -> str:
  """'75.3 ± 0.4% (3 seeds; 95% CI 74.3-76.3%)': mean over seeds (or draws), standard deviation."""
  value, std, total = metric["value"], metric["std"], metric["total"]
  factor, digits, sign, to = _UNITS[metric.get("unit", "share")]

  def text(number: float) -> str:
    return f"{factor * number:.{digits}f}"

  spread, what = "" if std is None else f" ± {text(std)}", metric.get("varied", "seed")
  found = f"{text(value)}{spread}{sign} ({total} {what}{'s' * (total != 1)}"
  if interval := interval_of(metric):
    found += f"; 95% CI {to.join(map(text, interval))}" + sign * (sign == "%")
  elif total == 1:
    found += ", no interval"
  return found + ")"


def is_missing(value: Any) -> bool:
  """Whether a number is None or NaN."""
  return value is None or math.isnan(value)


def interval_of(metric: Mapping[str, Any]) -> tuple[float, float] | None:
  """The interval of a metric, None if it has none: a mean of one value has none."""
  interval, is_mean = metric.get("interval"), "count" not in metric
  if interval is None or any(map(is_missing, interval)) or (is_mean and metric.get("total") == 1):
    return None
  return tuple(interval)
