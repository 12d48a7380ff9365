"""The report: one HTML page that needs nothing but itself, made from results and figures."""

import base64
import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from jprotop.errors import InputError
from jprotop.files import atomic_path
from jprotop.report import canvas, tables

# log(1 / jprotop.prototypes.similarity.EPSILON), written out because figures do without jax.
MAX_LOG_SIMILARITY = -math.log(1e-4)
# What the numbers of each `model.similarity` mean.
SIMILARITY = {
  "log": "0 means not at all; the log similarity of two equal patches is "
  f"{MAX_LOG_SIMILARITY:.2f}, the most it can be. The paper calls 4 and more very high.",
  "linear": "This network takes minus their distance: 0, the most it can be, means that the two "
  "are equal, and the further below 0, the less alike they are.",
}

# Where the text of a number may be broken: 0.5 | (n = 20; | 95% CI | 0.4 to 0.6).
_PIECES = re.compile(r" (?=\()|(?<=[;,]) |(?<=CI) ")
# So many metrics fit beside each other without being broken at all.
_ON_ONE_LINE = 2
# Characters of a text that stands on one line, and of one that does not want a wide column.
_WORD, _LONG = 24, 60

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclasses.dataclass(frozen=True)
class Picture:
  """A figure, or the bytes of a PNG file, and what a reader who cannot see it should know."""

  picture: Figure | bytes
  alt: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
  """A heading, a caption that says what to see, then pictures and perhaps a table of rows."""

  heading: str
  caption: str
  pictures: Sequence[Picture] = ()
  rows: Sequence[Mapping[str, Any]] = ()
  columns: Mapping[str, str] | Sequence[str] = ()


def write_page(
  path: str | os.PathLike,
  *,
  title: str,
  summary: str,
  sections: Sequence[Section],
  results: Mapping[str, Any],
) -> Path:
  """Writes the page to path, atomically; returns the path. Every text in it is escaped.

  Args:
    path: of the HTML file.
    title, summary: its heading, and a paragraph below it.
    sections: in the order of reading.
    results: what results.json holds; config, environment, protocol and seed go to the page's foot.
  """
  template = _environment().from_string(
    resources.files("jprotop.report").joinpath("report.html.jinja").read_text("utf-8")
  )
  page = template.render(
    title=title,
    summary=summary,
    sections=[_section(section) for section in sections],
    details=_details(results),
    similarity=SIMILARITY[_similarity_of(results)],
  )
  with atomic_path(path) as temporary:
    temporary.write_text(page, "utf-8")
  return Path(path)


def _similarity_of(results: Mapping[str, Any]) -> str:
  return results.get("config", {}).get("train", {}).get("model", {}).get("similarity", "log")


def _section(section: Section) -> dict[str, Any]:
  columns = section.columns
  headings = dict(columns) if isinstance(columns, Mapping) else {key: key for key in columns}
  rows = [[_cell(row.get(key)) for key in headings] for row in section.rows]
  num_metrics = max((sum(cell["kind"] == "metric" for cell in row) for row in rows), default=0)
  return {
    "heading": section.heading,
    "caption": section.caption,
    "pictures": [_picture(picture) for picture in section.pictures],
    "headings": list(headings.values()),
    "rows": rows,
    "few": num_metrics <= _ON_ONE_LINE,
  }


def _cell(value: Any) -> dict[str, Any]:
  """A cell's text in pieces that are not broken, so that no line ends within an interval, and its
  kind: a metric, or a word, a text or a long one."""
  text = tables.format_metric(value)
  if isinstance(value, Mapping):
    return {"kind": "metric", "pieces": _PIECES.split(text)}
  kind = "word" if len(text) <= _WORD else "text" if len(text) <= _LONG else "long"
  return {"kind": kind, "pieces": [text]}


def _picture(picture: Picture) -> dict[str, Any]:
  """The picture as a data URI, with its size, so that the page does not jump while it loads."""
  if not picture.alt.strip():
    raise InputError("a picture of the report has no alt text; say in a sentence what it shows")
  data = picture.picture
  data = canvas.png_bytes(data) if isinstance(data, Figure) else data
  if not data.startswith(_PNG):
    raise InputError(f"the picture '{picture.alt}' is no PNG file; give a Figure or PNG bytes")
  width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
  uri = "data:image/png;base64," + base64.b64encode(data).decode("ascii")
  # On a phone wide pictures keep a readable size and scroll in their own box.
  shape = "wide" if width > 1.9 * height else "broad" if width > 0.9 * height else "tall"
  return {"uri": uri, "alt": picture.alt, "width": width, "height": height, "shape": shape}


def _details(results: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Config, environment and the run's scalars, for the foldable part at the end."""
  run = {key: value for key, value in results.items() if isinstance(value, str | int | float)}
  groups = {"Run": run}
  names = ("config", "environment", "versions")
  groups |= {name.title(): results[name] for name in names if name in results}
  return [
    {"heading": heading, "rows": list(tables.flatten(values).items())}
    for heading, values in groups.items()
    if values
  ]


def _environment() -> jinja2.Environment:
  return jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
  )
