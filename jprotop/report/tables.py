"""Tables as Markdown, LaTeX and CSV: a number never goes without its count and its interval.

A table is rows and columns, which are keys of the rows, or {key: heading}. A cell is a metric as
jprotop.report.wording describes it, or a plain value.
"""

import csv
import io
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jprotop.report.wording import format_mean, format_seeds, format_share, interval_of

_LATEX = {
  "\\": r"\textbackslash{}",
  "~": r"\textasciitilde{}",
  "^": r"\textasciicircum{}",
  "<": r"\textless{}",
  ">": r"\textgreater{}",
  "|": r"\textbar{}",
  "±": r"$\pm$",
  **{character: f"\\{character}" for character in "&%$#_{}"},
  # At the start of a row these would belong to the \\ before it.
  **{character: f"{{{character}}}" for character in "[*"},
}


def format_metric(metric: Any) -> str:
  """A share, a mean, a mean over seeds, or any plain value, as text."""
  if isinstance(metric, Mapping) and "std" in metric:
    return format_seeds(metric)
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


def used_columns(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> dict[str, str]:
  """The columns that say something in at least one row, such as published numbers."""
  return {k: v for k, v in columns.items() if any(row.get(k) is not None for row in rows)}


def markdown_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | Mapping) -> str:
  """A GitHub table of the rows' columns."""
  headings = _headings(columns)
  lines = [_line(headings.values()), _line("---" for _ in headings)]
  lines += [_line(format_metric(row.get(key)) for key in headings) for row in rows]
  return "\n".join(lines) + "\n"


def latex_table(
  rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | Mapping, caption: str
) -> str:
  """A table environment that needs no package; the cells read as in Markdown."""
  headings = _headings(columns)
  body = [_latex_line(format_metric(row.get(key)) for key in headings) for row in rows]
  lines = [
    r"\begin{table}",
    r"\centering",
    rf"\caption{{{escape_latex(caption)}}}",
    rf"\begin{{tabular}}{{{'l' * len(headings)}}}",
    r"\hline",
    _latex_line(headings.values()),
    r"\hline",
    *body,
    r"\hline",
    r"\end{tabular}",
    r"\end{table}",
  ]
  return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
  """Text as LaTeX prints it, on one line."""
  return " ".join("".join(_LATEX.get(character, character) for character in text).split())


def csv_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | Mapping) -> str:
  """A line of keys, then one line a row, with all digits.

  A column with metrics becomes NAME, NAME_count, NAME_total, NAME_low, NAME_high, the last two the
  interval, and NAME_std where some of them are means over seeds. What there is not is empty.
  """
  metrics = {key: [row[key] for row in rows if _is_metric(row.get(key))] for key in columns}
  names = {key: _csv_columns(key, found) for key, found in metrics.items()}
  out = io.StringIO()
  writer = csv.writer(out, lineterminator="\n")
  writer.writerow(itertools.chain.from_iterable(names.values()))
  for row in rows:
    cells = (_csv_cells(row.get(key), len(parts)) for key, parts in names.items())
    writer.writerow(itertools.chain.from_iterable(cells))
  return out.getvalue()


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """{"a": {"b": 1}} as {"a.b": 1}: nested settings as rows of a table."""
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    name = f"{prefix}{key}"
    flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
  return flat


def _headings(columns: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
  return dict(columns) if isinstance(columns, Mapping) else {key: key for key in columns}


def _is_metric(cell: Any) -> bool:
  return isinstance(cell, Mapping) and "value" in cell


def _csv_columns(key: str, metrics: Sequence[Mapping[str, Any]]) -> list[str]:
  parts = ["_count", "_total", "_low", "_high"] if metrics else []
  if any("std" in metric for metric in metrics):
    parts.append("_std")
  return [key, *(key + part for part in parts)]


def _csv_cells(cell: Any, count: int) -> list[Any]:
  """The cells of one value, as many as its column has parts; None is written as nothing."""
  if not _is_metric(cell):
    return [cell] + [None] * (count - 1)
  low, high = interval_of(cell) or (None, None)
  return [cell["value"], cell.get("count"), cell.get("total"), low, high, cell.get("std")][:count]


def _latex_line(cells: Iterable[Any]) -> str:
  return " & ".join(escape_latex(str(cell)) for cell in cells) + r" \\"


def _line(cells: Iterable[Any]) -> str:
  escaped = (" ".join(str(cell).replace("|", r"\|").split()) for cell in cells)
  return "| " + " | ".join(escaped) + " |"
