"""The report: one HTML page that needs nothing but itself, made from results and figures."""

import base64
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from jprotop.errors import InputError
from jprotop.figures import canvas, tables
from jprotop.files import atomic_path

# log(1 / jprotop.similarity.EPSILON), written out because figures do without jax.
MAX_LOG_SIMILARITY = -math.log(1e-4)
# What the numbers of each `model.similarity` mean.
SIMILARITY = {
  "log": "0 means not at all; the log similarity of two equal patches is "
  f"{MAX_LOG_SIMILARITY:.2f}, the most it can be. The paper calls 4 and more very high.",
  "linear": "This network takes minus their distance: 0, the most it can be, means that the two "
  "are equal, and the further below 0, the less alike they are.",
}

_PNG = b"\x89PNG\r\n\x1a\n"

# What each number means, in the order in which a reader wants them.
HEAD_ON_STOMACH = {
  "moved_to_target": "Attacked images on which the prototype is now found in S_noisy",
  "exceeds_clean_maximum": "Attacked images on which the prototype scores higher in S_noisy than "
  "anywhere on the clean image",
  "prediction_kept": "Attacked images whose predicted class did not change",
  "moved_and_prediction_kept": "The prototype moved and the predicted class did not change",
  "clean_peak_in_target": "Clean images on which the prototype was in S_noisy already",
  "control_moved": "Control, random noise of the same size: the prototype is found in S_noisy",
  "similarity_source_before": "Highest similarity in S, before (mean over images)",
  "similarity_source_after": "Highest similarity in S, after",
  "similarity_target_before": "Highest similarity in S_noisy, before",
  "similarity_target_after": "Highest similarity in S_noisy, after",
  "largest_change": "Largest change of any pixel value, in units of [0, 1]",
}
PUSH = {
  "num_prototypes": "Prototypes",
  "distinct": "Different training patches among them",
  "accuracy_before": "Accuracy just before the push",
  "accuracy_after": "Accuracy just after the push",
}


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


def write_report(
  path: str | os.PathLike,
  *,
  results: Mapping[str, Any],
  figures: Sequence[Section],
  title: str = "Does this look like that?",
) -> Path:
  """Writes the page to path, atomically; returns the path.

  results is what results.json holds: the groups head_on_stomach, evaluate and push, each optional,
  then protocol, seed, config, environment. Every text in it is escaped.
  """
  template = _environment().from_string(
    resources.files(__package__).joinpath("report.html.jinja").read_text("utf-8")
  )
  page = template.render(
    title=title,
    summary=summary(results),
    numbers=number_tables(results),
    sections=[_section(section) for section in figures],
    details=_details(results),
    similarity=SIMILARITY[results.get("config", {}).get("model", {}).get("similarity", "log")],
  )
  with atomic_path(path) as temporary:
    temporary.write_text(page, "utf-8")
  return Path(path)


def summary(results: Mapping[str, Any]) -> str:
  """The headline numbers as one paragraph, each with its count and its interval."""
  attack = results.get("head_on_stomach", {})
  metrics, sentences = attack.get("metrics", {}), []
  if "moved_to_target" in metrics:
    moved = tables.format_share(metrics["moved_to_target"])
    noise = f"Noise of at most {attack['eps'] * 255:.3g}/255" if "eps" in attack else "Noise"
    sentence = "{} moved the prototype to the chosen place on {} of the attacked images."
    sentences.append(sentence.format(noise, moved))
  for name, sentence in {
    "exceeds_clean_maximum": "On {} of the attacked images it scored higher there than anywhere "
    "on the clean image.",
    "prediction_kept": "The predicted class stayed the same on {}.",
    "control_moved": "Random noise of the same size put it there on {}.",
  }.items():
    if name in metrics:
      sentences.append(sentence.format(tables.format_share(metrics[name])))
  for split, values in results.get("evaluate", {}).items():
    if "accuracy" in values:
      accuracy = tables.format_metric(values["accuracy"])
      sentences.append(f"The network classifies {accuracy} of the {split} images correctly.")
  return " ".join(sentences) or "This run holds no headline numbers yet."


def number_tables(results: Mapping[str, Any]) -> list[dict[str, Any]]:
  """All numbers as tables {"heading", "rows": [(meaning, text)]}, without the empty ones."""
  evaluate = {
    f"{split}: {name.replace('_', ' ')}": metric
    for split, values in results.get("evaluate", {}).items()
    for name, metric in values.items()
    if _is_number(metric)
  }
  attack = results.get("head_on_stomach", {})
  moved_by_target = {
    f"Moved to S_noisy, chosen as: {target}": values["moved_to_target"]
    for target, values in attack.get("by_target", {}).items()
  }
  groups = {
    "Head on Stomach": _meanings(attack.get("metrics", {}), HEAD_ON_STOMACH) | moved_by_target,
    "Classification": evaluate,
    "Push": _meanings(results.get("push", {}), PUSH),
  }
  numbers = [
    {"heading": heading, "rows": [(name, tables.format_metric(m)) for name, m in rows.items()]}
    for heading, rows in groups.items()
    if rows
  ]
  settings = _attack_settings(attack)
  return [*numbers, {"heading": "How it was attacked", "rows": settings}] if settings else numbers


def _attack_settings(attack: Mapping[str, Any]) -> list[tuple[str, str]]:
  """What was attacked, how, and what was left out, as (meaning, text)."""
  if "request" not in attack:
    return []
  request = attack["request"]
  chosen = request["images"] or "correctly classified test images, drawn at random"
  target = request["part"] or request["cells"] or "the stomach from the head, else least active"
  prototype = "the most activated of the predicted class"
  if request["prototype"] is not None:
    prototype = str(request["prototype"])
  left_out = [f"{s['image_id']}: {s['reason']}" for s in attack["not_attacked"]]
  left_out += attack["unreadable"]
  return [
    ("Images", f"{attack['num_images']}: {chosen}"),
    ("Prototype", prototype),
    ("S_noisy", str(target)),
    ("Noise", f"eps {attack['eps'] * 255:.3g}/255, step {attack['step_size'] * 255:.3g}/255"),
    ("Steps", f"{attack['num_steps']}, random start: {attack['random_start']}"),
    ("Protocol and seed", f"{attack['protocol']}, {attack['seed']}"),
    ("Images on which S_noisy shares cells with S", str(attack["num_overlapping"])),
    ("Left out", "; ".join(left_out) or "none"),
  ]


def _meanings(values: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
  """The known numbers under their meanings, in that order, then the others under their names."""
  names = [*(n for n in known if n in values), *(n for n in values if n not in known)]
  return {known.get(n, n.replace("_", " ")): values[n] for n in names if _is_number(values[n])}


def _is_number(value: Any) -> bool:
  if isinstance(value, Mapping):
    return "value" in value or ("count" in value and "total" in value)
  return isinstance(value, int | float)


def _section(section: Section) -> dict[str, Any]:
  columns = section.columns
  headings = dict(columns) if isinstance(columns, Mapping) else {key: key for key in columns}
  return {
    "heading": section.heading,
    "caption": section.caption,
    "pictures": [_picture(picture) for picture in section.pictures],
    "headings": list(headings.values()),
    "rows": [[tables.format_metric(row.get(key)) for key in headings] for row in section.rows],
  }


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
