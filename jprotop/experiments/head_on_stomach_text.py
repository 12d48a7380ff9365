"""Head on Stomach in words: what each number means, and how it was attacked."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from jprotop.report import tables

# What each number means, in the order in which a reader wants them.
MEANINGS = {
  "moved_to_target": "Attacked images on which the prototype is now found in S_noisy",
  "control_moved": "Control, random noise of the same size: the prototype is found in S_noisy",
  "exceeds_clean_maximum": "Attacked images on which the prototype scores higher in S_noisy than "
  "anywhere on the clean image",
  "exceeds_clean_maximum_by": "By how much, on average over all images",
  "prediction_kept": "Attacked images whose predicted class did not change",
  "moved_and_prediction_kept": "The prototype moved and the predicted class did not change",
  "clean_peak_in_target": "Clean images on which the prototype was in S_noisy already",
  "share_below_attacked": "Share of all clean similarities below the one in S_noisy",
  "share_below_4": "Share of all clean similarities below 4",
  "similarity_source_before": "Highest similarity in S, before (mean over images)",
  "similarity_source_after": "Highest similarity in S, after",
  "similarity_target_before": "Highest similarity in S_noisy, before",
  "similarity_target_after": "Highest similarity in S_noisy, after",
  "largest_change": "Largest change of any pixel value, in units of [0, 1]",
}


def tell(record: Mapping[str, Any], out: pathlib.Path) -> Iterator[str]:
  """What the command prints."""
  yield f"Head on Stomach, {record['num_images']} images, eps {record['eps'] * 255:.3g}/255:"
  if quality := record["survive_jpeg"]:
    yield f"  all is seen in JPEG files of quality {quality}, made after the resize"
  for name, text in (
    ("moved_to_target", "prototype now found in S_noisy"),
    ("control_moved", "  after random noise of the same size"),
    ("exceeds_clean_maximum", "scores in S_noisy above its clean maximum"),
    ("exceeds_clean_maximum_by", "  by, on average"),
    ("prediction_kept", "predicted class kept"),
    ("share_below_attacked", "share of clean similarities below that score"),
    ("share_below_4", "share of clean similarities below 4"),
  ):
    if name in record["metrics"]:
      yield f"  {text:<44} {tables.format_metric(record['metrics'][name])}"
  yield from (f"  not attacked: {s['image_id']}: {s['reason']}" for s in record["not_attacked"])
  yield from (f"  not read: {message}" for message in record["unreadable"])
  if overlapping := record["num_overlapping"]:
    yield f"  on {overlapping} images S_noisy and S share cells: being found there is no surprise"
  yield f"  figures in {out}/figures, arrays in {out}/attack.npz"


def number_rows(found: Mapping[str, Any]) -> list[dict]:
  rows = []
  for record in found.values():
    metrics = record["metrics"]
    rows += [{"what": text, "value": metrics[n]} for n, text in MEANINGS.items() if n in metrics]
    rows += [
      {"what": f"Moved to S_noisy, chosen as: {target}", "value": values["moved_to_target"]}
      for target, values in record["by_target"].items()
    ]
  return rows


def setting_rows(found: Mapping[str, Any]) -> list[dict]:
  """What was attacked, how, and what was left out."""
  return [
    {"what": what, "value": value}
    for record in found.values()
    for what, value in _settings(record).items()
  ]


def _settings(record: Mapping[str, Any]) -> dict[str, str]:
  request, quality = record["request"], record["survive_jpeg"]
  prototype = request["prototype"]
  left_out = [f"{s['image_id']}: {s['reason']}" for s in record["not_attacked"]]
  chosen = request["images"] or "correctly classified test images, drawn at random"
  target = request["part"] or request["cells"] or "the stomach from the head, else least active"
  known = "the most activated of the predicted class" if prototype is None else str(prototype)
  eps, step_size = (f"{record[name] * 255:.3g}/255" for name in ("eps", "step_size"))
  return {
    "Images": f"{record['num_images']}: {chosen}",
    "Prototype": known,
    "S_noisy": str(target),
    "Noise": f"eps {eps}, step {step_size}",
    "Steps": f"{record['num_steps']}, random start: {record['random_start']}",
    "JPEG files that pictures pass before they are seen": f"of quality {quality}, made after the "
    "resize"
    if quality
    else "none",
    "Protocol and seed": f"{record['protocol']}, {record['seed']}",
    "Images on which S_noisy shares cells with S": str(record["num_overlapping"]),
    "Left out": "; ".join([*left_out, *record["unreadable"]]) or "none",
  }
