"""The strongest attack in words: what its command prints, its parts of the report, its claims."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from jprotop.experiments.attacking import sample_text
from jprotop.experiments.experiment import Passage, Pictures
from jprotop.experiments.map_quality import unless_collapsed
from jprotop.experiments.robustness_numbers import more_robust
from jprotop.report.paper_tables import NETWORK_NAMES
from jprotop.report.verdicts import Rule, of_difference, of_metric, supposing
from jprotop.report.wording import format_share

_KEPT = "moved_and_prediction_kept"
_ATTACKS = {"strong": "strong attack", "paper": "paper's attack", "control": "random noise"}


def tell(record: Mapping[str, Any], out: pathlib.Path) -> Iterator[str]:
  """What the command prints."""
  eps, top_k = record["budget"]["eps"], record["top_k"]
  yield (
    f"{record['strength']}: {record['restarts']} starts x 2 objectives x {record['num_steps']} "
    f"steps, eps {eps * 255:.3g}/255; {sample_text(record['sample'])}"
  )
  yield "Top prototype moved off S with its class kept (in brackets: with any class):"
  for k in dict.fromkeys(("1", str(top_k))):
    within = "" if k == "1" else f", or one of the top {k}"
    for name, text in _ATTACKS.items():
      yield _line(f"{text}{within}", record[f"{name}_at"][k])
  for level in record["curve"][:-1]:
    yield _line(f"strong attack, eps {level['eps'] * 255:.3g}/255", level["strong"])
  for row in record["by_target"][1:]:
    for name, text in _ATTACKS.items():
      yield _line(f"{row['target']}, noise on {row['mask']}: {text}", row[name])
  if record["without_gradients"]:
    yield _tell_square(record["without_gradients"])
  if apart := record["num_not_attackable"]:
    yield f"  left out of the top prototype's rows: {apart} images on which S covers the whole map"
  yield f"  figures in {out}/figures, a line an image, target and mask in {out}/strong_attack.csv"


def _line(text: str, rates: Mapping[str, Any]) -> str:
  return f"  {text:<58} {format_share(rates[_KEPT])} [{format_share(rates['moved'])}]"


def _tell_square(found: Mapping[str, Any]) -> str:
  solved, square = found["solved"], format_share(found["square"][_KEPT])
  text = f"  Square attack, {found['queries']} looks, no gradients: {square}"
  return f"{text}; {masked(solved)}"


def masked(solved: Mapping[str, Any]) -> str:
  """What Square attack says of the gradients."""
  if not solved["total"]:
    return "the strong attack missed no image"
  if not solved["count"]:
    return f"it solves none of the {solved['total']} images that the strong attack missed"
  return (
    f"it solves {solved['count']} of the {solved['total']} images that the strong attack missed: "
    "there gradients are masked, and the strong attack's rate is too low"
  )


def _by_target(found: Mapping[str, Any]) -> list[dict]:
  return [
    {
      "network": NETWORK_NAMES[network],
      "target": row["target"],
      "mask": row["mask"],
      "strong": row["strong"][_KEPT],
      "strong_moved": row["strong"]["moved"],
      "paper": row["paper"][_KEPT],
      "control": row["control"][_KEPT],
    }
    for network, record in found.items()
    for row in record["by_target"]
  ]


def _by_prototypes(found: Mapping[str, Any]) -> list[dict]:
  return [
    {
      "network": NETWORK_NAMES[network],
      "k": int(k),
      **{name: record[f"{name}_at"][k][_KEPT] for name in _ATTACKS},
      "strong_moved": record["strong_at"][k]["moved"],
      "sample": sample_text(record["sample"]),
    }
    for network, record in found.items()
    for k in dict.fromkeys(("1", str(record["top_k"])))
  ]


def _by_eps(found: Mapping[str, Any]) -> list[dict]:
  return [
    {
      "network": NETWORK_NAMES[network],
      "eps": f"{level['eps'] * 255:.3g}/255",
      "kept": level["strong"][_KEPT],
      "moved": level["strong"]["moved"],
    }
    for network, record in found.items()
    for level in record["curve"]
  ]


def _square_rows(found: Mapping[str, Any]) -> list[dict]:
  return [
    {
      "network": NETWORK_NAMES[network],
      "queries": record["without_gradients"]["queries"],
      "square": record["without_gradients"]["square"][_KEPT],
      "strong": record["strong_at"]["1"][_KEPT],
      "says": masked(record["without_gradients"]["solved"]),
    }
    for network, record in found.items()
    if record["without_gradients"]
  ]


_COLUMNS = {
  "strong": "Strong attack",
  "strong_moved": "Strong attack, any class",
  "paper": "Paper's attack",
  "control": "Random noise",
}

PASSAGES = (
  Passage(
    heading="The strongest attack",
    caption="How many images have their top prototype, or one of their top k, found off the place "
    "S where it was, with the predicted class kept: by APGD from several starts with two "
    "objectives, the best picture by the success test (strong attack); by the paper's attack; and "
    "by random noise with as many pictures to choose from. All on the same images, with noise off "
    "S. A network is robust only against attacks that were tried.",
    rows=_by_prototypes,
    columns={"network": "Network", "k": "First k prototypes", **_COLUMNS, "sample": "Images"},
  ),
  Passage(
    heading="How much noise it takes",
    caption="The share of images whose top prototype the strong attack moves off S, by eps, the "
    "largest change of a pixel. An image that a smaller eps moves counts for the larger ones. "
    "Bars are 95% intervals.",
    rows=_by_eps,
    columns={
      "network": "Network",
      "eps": "eps",
      "kept": "Moved, class kept",
      "moved": "Moved, any class",
    },
    pictures=(
      Pictures(network="adversarial", pattern="eps_curve.png"),
      Pictures(network="standard", pattern="eps_curve.png"),
    ),
  ),
  Passage(
    heading="Where to, and with noise where",
    caption="Off S: anywhere else. Head to stomach: of the top prototypes one that sits on the "
    "head, to the visible stomach. Random rectangle: drawn off S, of the shape of S. Noise on "
    "S_noisy, on S and S_noisy, and on the whole image are different threat models. Compare rows "
    "with their control; rows of other targets are of other images.",
    rows=_by_target,
    columns={"network": "Network", "target": "Target", "mask": "Noise on", **_COLUMNS},
  ),
  Passage(
    heading="Without gradients",
    caption="Square attack on the same images, mask and eps as the strong attack. Where it moves "
    "prototypes that the strong attack did not, gradients are masked.",
    rows=_square_rows,
    columns={
      "network": "Network",
      "queries": "Looks",
      "square": "Square attack, class kept",
      "strong": "Strong attack, class kept",
      "says": "What it says",
    },
  ),
)


def claims(results: Mapping[str, Any]) -> list[dict]:
  """Section 3's and App. F.1's statements under the strong attack."""
  found = results.get("strong_attack", {})
  rate = {network: record["strong_at"]["1"][_KEPT] for network, record in found.items()}
  beyond = {network: record["by_target"][0]["beyond_control"] for network, record in found.items()}
  label = "strong attack minus random noise, top prototype moved off S with its class kept"
  return [
    *of_metric(
      "Noise moves where a prototype is found, and the prediction stays (strong attack)",
      "Section 3",
      (label, beyond.get("standard")),
      Rule(0.05),
    ),
    *supposing(more_robust(results), unless_collapsed(_of_remedy(rate, beyond, label), results)),
  ]


def _of_remedy(rate: Mapping[str, Any], beyond: Mapping[str, Any], label: str) -> list[dict]:
  return [
    *of_difference(
      "Adversarial training reduces the success rate by more than half (strong attack)",
      "App. F.1",
      ("adversarial training", rate.get("adversarial")),
      ("standard training", rate.get("standard")),
      Rule(0.05, direction="below"),
      factor=0.5,
    ),
    *of_metric(
      "It does not alleviate the problem entirely (strong attack)",
      "App. F.1",
      (label, beyond.get("adversarial")),
      Rule(0.05),
    ),
  ]
