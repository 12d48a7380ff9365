"""The report of one run, from results.json, history.jsonl and the figures in its folder."""

import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jprotop.figures import tables
from jprotop.figures.report import Picture, Section, write_page
from jprotop.figures.study_content import CONTENT

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


# Pages of the gallery that go into the report; the rest stay beside it in figures/.
_GALLERY_PAGES = 6

# What each kind of figure shows: (file pattern, heading, caption), in the order of reading.
_SECTIONS = (
  (
    "head_on_stomach_*.png",
    "Where a prototype is found, before and after",
    "The layout of the paper's Figure 1. Left: the training image that the prototype comes from, "
    "and the prototype itself. Top row: the clean image and where the network finds the prototype "
    "(yellow). Bottom row: the same image with noise inside the green outline only. Compare the "
    "yellow boxes, and the similarities printed above them. Both heat maps share one scale. Shown "
    "are the first attacked images, those first on which a prototype was to move from head to "
    "stomach; each title says whether it moved.",
  ),
  (
    "similarity_shift.png",
    "Every attacked image",
    "Similarity of the attacked prototype inside S, where it was found, and inside S_noisy, where "
    "it was to be moved, before and after the attack; one line an image. The explanation fails "
    "where a line on the right ends above where the same image's line on the left ends.",
  ),
  (
    "training_curves.png",
    "How the network was trained",
    "Accuracy and losses over the epochs of the phases. The push replaces every prototype by a "
    "patch of a training image; a drop there is what that costs before the last layer is tuned.",
  ),
  (
    "confusion_test.png",
    "Which classes are confused",
    "Test images: rows are the true classes, columns the predicted ones.",
  ),
  (
    "gallery_*.png",
    "All prototypes",
    "Each prototype is a patch of a training image of its class: the patch above, the image below "
    "with the box of high activation.",
  ),
)


# What a study keeps network by network, and a run of one network does not.
_BY_NETWORK = ("success_rate", "jpeg_drift")


def _others(workdir: pathlib.Path, results: Mapping[str, Any]) -> Iterator[Section]:
  """Of what a study shows of its networks, what this run measured and _SECTIONS lacks."""
  network = results["config"]["variant"]
  found = {name: {network: results[name]} for name in _BY_NETWORK if name in results}
  if "vanishing_head" in results:
    found["vanishing_head"] = results["vanishing_head"]
  homes = _homes(network)
  for heading, caption, rows, columns, _ in CONTENT:
    patterns = [pattern for pattern, home in homes.items() if home == heading]
    numbers = rows(found) if rows else []
    yield _section(workdir, heading, caption, patterns, rows=numbers, columns=columns)


def _homes(network: str) -> dict[str, str]:
  """The heading of each kind of figure: one that speaks of this network, if there is one."""
  homes = {}
  for heading, *_, pictures in CONTENT:
    for kind, _, pattern, _ in pictures:
      if kind == network or pattern not in homes:
        homes[pattern] = heading
  shown = {pattern for pattern, _, _ in _SECTIONS}
  return {pattern: heading for pattern, heading in homes.items() if pattern not in shown}


def _section(
  workdir: pathlib.Path, heading: str, caption: str, patterns: Iterable[str], **table
) -> Section:
  pictures = []
  for pattern in patterns:
    files = sorted((workdir / "figures").glob(pattern))
    shown = files[:_GALLERY_PAGES]
    if len(files) > len(shown):
      caption += f" The first {len(shown)} of {len(files)} pages; the others are in figures/."
    pictures += [
      Picture(path.read_bytes(), f"{heading}: {path.stem.replace('_', ' ')}") for path in shown
    ]
  return Section(heading=heading, caption=caption, pictures=pictures, **table)


def write_run_report(workdir: pathlib.Path, results: dict) -> pathlib.Path:
  """Writes report.html into a run's folder from `results` and the figures found there."""
  own = (_section(workdir, heading, caption, [pattern]) for pattern, heading, caption in _SECTIONS)
  sections = [s for s in (*own, *_others(workdir, results)) if s.pictures or s.rows]
  return write_report(workdir / "report.html", results=results, figures=sections)


def write_report(
  path: str | os.PathLike,
  *,
  results: Mapping[str, Any],
  figures: Sequence[Section],
  title: str = "Does this look like that?",
) -> pathlib.Path:
  """Writes the page of one run to path; returns the path.

  results is what results.json holds: the groups head_on_stomach, evaluate and push, each optional,
  then protocol, seed, config, environment.
  """
  return write_page(
    path,
    title=title,
    summary=summary(results),
    numbers=number_tables(results),
    sections=figures,
    results=results,
  )


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
    if "clean" in values:
      accuracy = tables.format_metric(values["clean"])
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
  quality = attack.get("survive_jpeg")
  files = f"of quality {quality}, made after the resize" if quality else "none"
  left_out = [f"{s['image_id']}: {s['reason']}" for s in attack["not_attacked"]]
  left_out += attack["unreadable"]
  return [
    ("Images", f"{attack['num_images']}: {chosen}"),
    ("Prototype", prototype),
    ("S_noisy", str(target)),
    ("Noise", f"eps {attack['eps'] * 255:.3g}/255, step {attack['step_size'] * 255:.3g}/255"),
    ("Steps", f"{attack['num_steps']}, random start: {attack['random_start']}"),
    ("JPEG files that pictures pass before they are seen", files),
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
