"""Numbers and tables as text: a number never goes without its count and its interval.

A metric is a dict as results.json holds it: a share {"value", "count", "total", "interval"} or a
mean {"value", "total", "interval"}; the interval is the 95% one, [low, high], or absent.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def format_share(metric: Mapping[str, Any], *, digits: int = 1) -> str:
  """'95.0% (19/20; 95% CI 76.4-99.1%)'; 'n/a (0/0)' where nothing was counted."""
  count, total = metric["count"], metric["total"]
  value = metric.get("value", count / total if total else None)
  if _missing(value):
    return f"n/a ({count}/{total})"
  text = f"{100 * value:.{digits}f}% ({count}/{total}"
  if interval := _interval(metric):
    text += f"; 95% CI {100 * interval[0]:.{digits}f}-{100 * interval[1]:.{digits}f}%"
  return text + ")"


def format_mean(metric: Mapping[str, Any], *, digits: int = 2) -> str:
  """'2.61 (n = 20; 95% CI 2.10 to 3.02)'; 'n/a (n = 0)' where there is nothing to average."""
  value, notes = metric.get("value"), []
  if "total" in metric:
    notes.append(f"n = {metric['total']}")
  if not _missing(value) and (interval := _interval(metric)):
    notes.append(f"95% CI {interval[0]:.{digits}f} to {interval[1]:.{digits}f}")
  text = "n/a" if _missing(value) else f"{value:.{digits}f}"
  return f"{text} ({'; '.join(notes)})" if notes else text


def format_metric(metric: Any) -> str:
  """A share, a mean, or any plain value, as text."""
  if isinstance(metric, Mapping) and "count" in metric and "total" in metric:
    return format_share(metric)
  if isinstance(metric, Mapping) and "value" in metric:
    return format_mean(metric)
  return format_cell(metric)


def format_cell(value: Any) -> str:
  """A plain value as a table shows it: floats to four digits, None and NaN as nothing."""
  if value is None or (isinstance(value, float) and math.isnan(value)):
    return ""
  return f"{value:.4g}" if isinstance(value, float) else str(value)


def markdown_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | Mapping) -> str:
  """A GitHub table of the rows' columns; columns are keys, or {key: heading}."""
  headings = dict(columns) if isinstance(columns, Mapping) else {key: key for key in columns}
  lines = [_line(headings.values()), _line("---" for _ in headings)]
  lines += [_line(format_metric(row.get(key)) for key in headings) for row in rows]
  return "\n".join(lines) + "\n"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """{"a": {"b": 1}} as {"a.b": 1}: nested settings as rows of a table."""
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    name = f"{prefix}{key}"
    flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
  return flat


def _line(cells: Iterable[Any]) -> str:
  escaped = (" ".join(str(cell).replace("|", r"\|").split()) for cell in cells)
  return "| " + " | ".join(escaped) + " |"


def _missing(value: Any) -> bool:
  return value is None or math.isnan(value)


def _interval(metric: Mapping[str, Any]) -> tuple[float, float] | None:
  interval = metric.get("interval")
  return None if interval is None or any(map(_missing, interval)) else tuple(interval)
