"""Does each of the paper's claims hold here? Decided by 95% intervals alone.

The intervals are over test images, of one network of each kind: how much another training would
differ is for studies with other seeds to say (jprotop.evaluation.collect).
"""

from collections.abc import Mapping
from typing import Any

from jprotop.evaluation.paper_tables import find, success_rate
from jprotop.evaluation.verdicts import decide, of_difference, of_metric, text
from jprotop.evaluation.wording import format_mean

_PROTOCOLS = ("paper", "authors")
_OURS = "; the threshold is ours"
# How many images may change their top prototype where compression is no problem any more.
_TOLERANCE = 0.05


def claims(results: Mapping[str, Any]) -> list[dict]:
  """The paper's claims, and checks of ours, in its order; not those whose sections are missing.

  Args:
    results: sections of a study's results.json.

  Returns:
    For each: `claim` and `section` of the paper; `ours`, True for what the paper does not say, but
    we check; `evidence`, the numbers as text; `quantity`, its `interval`, and the `threshold` above
    or below (`direction`) which it was to lie; `holds`, True, False or "undecided".
  """
  return [
    *_head_on_stomach(results),
    *_jpeg(results),
    *_adversarial_training(results),
    *_augmentation(results),
  ]


def _head_on_stomach(results: Mapping[str, Any]) -> list[dict]:
  numbers = find(results, "head_on_stomach", "metrics") or {}
  four = numbers.get("percentile_of_4")
  note = f"; share of them below 4: {format_mean(four, digits=3)}" if four else ""
  return [
    *of_difference(
      "Noise that nobody sees moves where a prototype is found, and the prediction stays",
      "Section 3",
      ("moved, prediction kept", numbers.get("moved_and_prediction_kept")),
      ("moved by random noise", numbers.get("control_moved")),
    ),
    *of_metric(
      "The similarity at the wrong place is even higher than on the clean image",
      "Section 3",
      ("similarity in S_noisy minus the clean maximum", numbers.get("exceeds_clean_maximum_by")),
    ),
    *of_metric(
      "That similarity is high among all similarities",
      "Section 3",
      (
        "share of all clean similarities that lie below it",
        numbers.get("percentile_of_attacked"),
      ),
      threshold=0.95,
      note=_OURS + note,
    ),
  ]


def _drift(results: Mapping[str, Any], network: str, name: str, selection="paper") -> dict | None:
  return find(results, "jpeg_drift", network, "selections", selection, name)


def _jpeg(results: Mapping[str, Any]) -> list[dict]:
  drop, reverse = (
    _drift(results, "jpeg", name) for name in ("similarity_drop", "similarity_drop_reverse")
  )
  trained, control = (
    _drift(results, network, "similarity_drop", "compressed_classes")
    for network in ("jpeg", "standard")
  )
  other = f"similarity_drop_reverse, clean minus compressed: {text(reverse)}; " if reverse else ""
  kept = _drift(results, "jpeg", "top_k_order_kept")
  return [
    *of_metric(
      "Similarities drop when the compression artefacts are removed",
      "Section 4",
      ("similarity, compressed minus clean", drop),
      note=f"; {other}picking the top prototype of one version tends to make both drops positive",
    ),
    # Not the uncompressed classes: in this network artefacts are evidence on every image.
    *of_difference(
      "They drop more than in the network that never saw artefacts (control)",
      "Section 4",
      ("drop on compressed classes", trained),
      ("the standard network's on the same images", control),
      ours=True,
    ),
    *of_metric(
      "They do not simply scale down: the order of the top prototypes changes",
      "App. D.2",
      ("same top prototypes in the same order", kept),
      threshold=0.5,
      direction="below",
      note=_OURS,
    ),
    *of_metric(
      "The top prototypes do not generally remain the top prototypes",
      "App. D.2",
      ("share of them that remain", _drift(results, "jpeg", "top_k_overlap")),
      threshold=0.5,
      direction="below",
      note=_OURS,
    ),
    *of_metric(
      "Accuracy falls on the original test set",
      "App. E",
      ("accuracy, altered minus original", _gap(results, "jpeg")),
    ),
  ]


def _adversarial_training(results: Mapping[str, Any]) -> list[dict]:
  rates = {
    (network, protocol): success_rate(results, network, protocol)
    for network in ("standard", "adversarial")
    for protocol in _PROTOCOLS
  }
  clean, robust = (
    {n: find(results, "evaluate", n, name) for n in ("standard", "adversarial")}
    for name in ("clean", "robust")
  )
  found = []
  for protocol in _PROTOCOLS:
    found += of_difference(
      f"Adversarial training reduces the success rate by more than half (protocol {protocol})",
      "App. F.1",
      ("adversarial training", rates["adversarial", protocol]),
      ("standard training", rates["standard", protocol]),
      factor=0.5,
      direction="below",
    )
  for protocol in _PROTOCOLS:
    control = find(results, "success_rate", "adversarial", protocol, "control")
    top_k = find(results, "success_rate", "adversarial", protocol, "top_k")
    found += of_difference(
      f"It does not alleviate the problem entirely (protocol {protocol})",
      "App. F.1",
      ("adversarial training", rates["adversarial", protocol]),
      ("random noise on the same network", find(control, "rate_at", str(top_k))),
    )
  found += of_difference(
    "It comes at a drop in accuracy on the test set",
    "App. F.1",
    ("standard training", clean["standard"]),
    ("adversarial training", clean["adversarial"]),
  )
  found += of_difference(
    "It raises accuracy under attack",
    "App. F.1",
    ("adversarial training", robust["adversarial"]),
    ("standard training", robust["standard"]),
    ours=True,
  )
  return found


def _augmentation(results: Mapping[str, Any]) -> list[dict]:
  # Of the same images: which ones are in `paper` depends on the network.
  before, after = (
    _drift(results, network, "similarity_drop", "compressed_classes")
    for network in ("jpeg", "jpeg_augmented")
  )
  kept = _drift(results, "jpeg_augmented", "top_prototype_kept", "compressed_classes")
  drop = f"; similarity, compressed minus clean: {text(after)}" if after else ""
  return [
    *_closes(
      "JPEG augmentation closes most of the gap in accuracy",
      ("altered minus original, with augmentation", _gap(results, "jpeg_augmented")),
      ("without", _gap(results, "jpeg")),
    ),
    *_closes(
      "JPEG augmentation takes away most of the drop in similarity",
      ("drop with augmentation", after),
      ("without", before),
    ),
    *of_metric(
      "It does not resolve the problem completely",
      "App. F.2",
      ("with augmentation, same top prototype with and without artefacts", kept),
      # A drop above 0 would show little: it is picked to be high.
      threshold=1 - _TOLERANCE,
      direction="below",
      note=f"{_OURS}{drop}",
    ),
  ]


def _gap(results: Mapping[str, Any], network: str) -> dict | None:
  return find(results, "evaluate", network, "altered_minus_clean")


def _closes(
  claim: str, after: tuple[str, dict | None], before: tuple[str, dict | None]
) -> list[dict]:
  """That less than half of a gap is left, on either side of 0; undecided without a gap to close.

  Both sides must agree, so that the row is about the one that agrees less.
  """
  sides = [
    of_difference(
      claim, "App. F.2", after, before, factor=factor, direction=direction, note=_OURS, ours=True
    )
    for factor, direction in ((0.5, "below"), (-0.5, "above"))
  ]
  if not all(sides):
    return []
  (not_closed,), (overshot,) = sides
  row = min(not_closed, overshot, key=lambda side: [False, "undecided", True].index(side["holds"]))
  if row is overshot:
    row["evidence"] += "; a gap to the other side is none that is closed"
  if decide(before[1]["interval"], 0, "above") is not True:
    row["holds"] = "undecided"
    row["evidence"] += "; without augmentation no gap was found that could be closed"
  return [row]
