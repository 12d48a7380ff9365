"""Head on Stomach in words: what each number means, and how it was attacked."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from jprotop.data.parts import HEAD_TO_STOMACH
from jprotop.experiments.attacking import sample_text
from jprotop.experiments.experiment import Passage, Pictures
from jprotop.report import tables, verdicts
from jprotop.report.verdicts import Rule, of_metric

# What each number means, in the order in which a reader wants them.
MEANINGS = {
  "moved_and_prediction_kept": "Successes: the prototype is now found in S_noisy, and the "
  "predicted class did not change (share of the attacked images)",
  "control_moved_and_prediction_kept": "The same by random noise of the same size (control)",
  "success_minus_control": "The first minus the second, image by image",
  "success_exceeds_clean_maximum": "Of the successes: the prototype scores higher in S_noisy than "
  "anywhere on the same image before",
  "success_exceeds_clean_maximum_by": "Of the successes: by how much, on average",
  "success_share_below_own": "Of the successes: share of the same prototype's maxima on clean test "
  "images that lie below that score",
  "exceeds_clean_maximum": "Over all attacked images, also where it failed: the prototype scores "
  "higher in S_noisy than anywhere on the same image before",
  "exceeds_clean_maximum_by": "Over all attacked images: by how much, on average",
  "share_below_own": "Over all attacked images: share of the same prototype's clean maxima below "
  "the score in S_noisy",
  "share_below_attacked": "Over all attacked images: share of all clean similarities below it",
  "share_below_4": "Share of all clean similarities below 4",
  "moved_to_target": "Attacked images on which the prototype is now found in S_noisy, whatever the "
  "class",
  "control_moved": "The same by random noise of the same size (control)",
  "prediction_kept": "Attacked images whose predicted class did not change",
  "clean_peak_in_target": "Clean images on which the prototype was in S_noisy already",
  "similarity_source_before": "Highest similarity in S, before (mean over images)",
  "similarity_source_after": "Highest similarity in S, after",
  "similarity_target_before": "Highest similarity in S_noisy, before",
  "similarity_target_after": "Highest similarity in S_noisy, after",
  "largest_change": "Largest change of any pixel value, in units of [0, 1]",
  "psnr": "Peak signal-to-noise ratio of the attacked images, whole, in dB",
  "ssim": "Structural similarity of the attacked images with the clean ones, whole",
}


def tell(record: Mapping[str, Any], out: pathlib.Path) -> Iterator[str]:
  """What the command prints."""
  yield f"Head on Stomach, {record['num_images']} images, eps {record['eps'] * 255:.3g}/255:"
  if quality := record["survive_jpeg"]:
    yield f"  all is seen in JPEG files of quality {quality}, made after the resize"
  if sample := record["sample"]:
    yield f"  {sample_text(sample)}"
  yield "  a prototype is found where the strongest cell of its map is"
  for name, text in (
    ("moved_and_prediction_kept", "prototype now in S_noisy, class kept"),
    ("control_moved_and_prediction_kept", "  by random noise of the same size"),
    ("success_exceeds_clean_maximum", "  of these: above the image's clean maximum"),
    ("success_exceeds_clean_maximum_by", "    by, on average"),
    ("success_share_below_own", "    its clean maxima on test images below it"),
    ("moved_to_target", "prototype now in S_noisy, whatever the class"),
    ("prediction_kept", "predicted class kept"),
    ("exceeds_clean_maximum_by", "above the clean maximum by, over all images"),
    ("share_below_4", "share of clean similarities below 4"),
    ("psnr", "signal to noise, dB"),
    ("ssim", "structural similarity"),
  ):
    if name in record["metrics"]:
      yield f"  {text:<44} {tables.format_metric(record['metrics'][name])}"
  yield "  found where it was sent, by where it sat"
  for movement in record["movements"]:
    arrived = tables.format_metric(movement["moved_to_target"])
    yield f"    {_way(movement):<42} {arrived}"
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
  return rows


def head_to_stomach(record: Mapping[str, Any]) -> dict | None:
  """On how many images the prototype really went from head to stomach; None: none was so sent."""
  for movement in record["movements"]:
    if (movement["sat_on"], movement["target"]) == HEAD_TO_STOMACH:
      return movement["moved_to_target"]
  return None


def _way(movement: Mapping[str, Any]) -> str:
  return f"from {movement['sat_on']} to {movement['target']}"


def movement_rows(found: Mapping[str, Any]) -> list[dict]:
  return [movement for record in found.values() for movement in record["movements"]]


def image_rows(found: Mapping[str, Any]) -> list[dict]:
  """A row an attacked image, of the first."""
  return [
    {
      "image": row["image_id"].split("/")[-1],
      "prototype": row["prototype"],
      "way": f"{row['prototype_sits_on'] or 'no part'} to {row['target']}",
      "arrived": "yes" if row["moved_to_target"] else "no",
      "before": row["similarity_target_before"],
      "after": row["similarity_target_after"],
      "kept": "yes" if row["predicted_before"] == row["predicted_after"] else "no",
    }
    for record in found.values()
    for row in record["images"][:_NUM_ROWS]
  ]


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
  sample = record["sample"]
  chosen = f"drawn at random, {sample_text(sample)}" if sample else request["images"]
  target = request["part"] or request["cells"] or "the stomach from the head, else least active"
  known = "the most activated of the predicted class" if prototype is None else str(prototype)
  eps, step_size = (f"{record[name] * 255:.3g}/255" for name in ("eps", "step_size"))
  return {
    "Images": f"{record['num_images']} attacked: {chosen}",
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


def claims(results: Mapping[str, Any]) -> list[dict]:
  """Section 3's statements about the standard network.

  It says that noise can do it, and shows successes. So the first is about how often it does, and
  the others are about the successes.
  """
  metrics = results.get("head_on_stomach", {}).get("standard", {}).get("metrics", {})
  return [
    *of_metric(
      "Noise that nobody sees can move where a prototype is found, and the prediction stays",
      "Section 3",
      ("by the attack minus by random noise, image by image", metrics.get("success_minus_control")),
      Rule(0.05),
      note=_noted(
        metrics,
        moved_and_prediction_kept="by the attack",
        control_moved_and_prediction_kept="by random noise",
      ),
    ),
    *_of_successes(metrics),
  ]


def _of_successes(metrics: Mapping[str, Any]) -> list[dict]:
  everywhere = "over all attacked images, also where it failed"
  return [
    *of_metric(
      "Where it succeeds, the similarity at the wrong place is even higher than on the clean image",
      "Section 3",
      (
        "similarity in S_noisy minus the same image's clean maximum, of the successes",
        metrics.get("success_exceeds_clean_maximum_by"),
      ),
      Rule(0.1),
      note=_noted(
        metrics,
        success_exceeds_clean_maximum="successes that lie above it",
        exceeds_clean_maximum_by=everywhere,
      ),
    ),
    *of_metric(
      "Where it succeeds, that similarity is high for the prototype",
      "Section 3",
      (
        "share of the prototype's maxima on clean test images that lie below it, of the successes",
        metrics.get("success_share_below_own"),
      ),
      Rule(0.02, threshold=0.95),
      note="; the threshold is ours"
      + _noted(
        metrics,
        share_below_own=everywhere,
        share_below_4="share of all clean similarities below 4",
      ),
    ),
  ]


def _noted(metrics: Mapping[str, Any], **labels: str) -> str:
  """What stands beside a claim's number: metrics that were measured, with their labels."""
  known = {label: metrics.get(name) for name, label in labels.items()}
  return "".join(
    f"; {label}: {verdicts.text(metric)}" for label, metric in known.items() if metric is not None
  )


_NUM_ROWS = 50
_TABLE = {"what": "What", "value": "Value"}
PASSAGES = (
  Passage(
    heading="Head on Stomach (Section 3)",
    caption="The layout of the paper's Figure 1. Left: the training image that the prototype comes "
    "from, and the prototype itself. Top row: the clean image and where the network finds the "
    "prototype. Bottom row: the same image with noise inside the green outline, S_noisy, only. "
    "What decides is the strongest cell of the map, marked by a white cross: its similarity is the "
    "prototype's score, and the prototype moved if the cross of the bottom row lies in the green "
    "outline. The yellow box holds the highest 5% of the map's pixels; it may hardly move, or hold "
    "both places. The last picture shows every attacked image as a line: the explanation fails "
    "where a line on the right ends above where the same image's line on the left ends.",
    rows=number_rows,
    columns=_TABLE,
    pictures=(
      Pictures(network="standard", pattern="head_on_stomach_*.png", most=3),
      Pictures(network="standard", pattern="similarity_shift.png"),
    ),
  ),
  Passage(
    heading="From where to where the prototypes went",
    caption="By the annotated part that the prototype sat on in the clean image and the place "
    "where it was wanted, which is S_noisy: on how many images it arrived there, that is, its "
    "strongest cell lies there. Least active: the rectangle where its map was lowest, taken where "
    "the prototype did not sit on the head, or no cell of the stomach was free.",
    rows=movement_rows,
    columns={
      "sat_on": "Sat on",
      "target": "Sent to",
      "moved_to_target": "Arrived",
      "control_moved": "By random noise",
    },
  ),
  Passage(
    heading="Each attack",
    caption=f"The first {_NUM_ROWS}; all of them are in results.json. From: the part that the "
    "prototype sat on. Before, after: the highest similarity in S_noisy.",
    rows=image_rows,
    columns={
      "image": "Image",
      "prototype": "Prototype",
      "way": "From, to",
      "arrived": "Arrived",
      "before": "Before",
      "after": "After",
      "kept": "Class kept",
    },
  ),
  Passage(
    heading="How it was attacked",
    caption="What was attacked in the pictures above, how, and what was left out.",
    rows=setting_rows,
    columns=_TABLE,
  ),
)
