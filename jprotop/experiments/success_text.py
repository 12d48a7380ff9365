"""The success rate in words, and its parts of the report."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from jprotop.attacks.cases import RULES
from jprotop.experiments.attacking import sample_text
from jprotop.experiments.experiment import Passage, Pictures
from jprotop.report import tables
from jprotop.report.paper_tables import NETWORK_NAMES


def tell(record: Mapping[str, Any], out: pathlib.Path) -> Iterator[str]:
  """What the command prints."""
  for name in RULES:
    if name in record:
      yield from _tell_protocol(name, record[name])
  for row in record.get("ablation") or []:
    first, rate = (tables.format_metric(row[name]) for name in ("rate_first", "rate"))
    yield f"  {row['setting']}\n    first prototype {first}, all {rate}"
  yield f"  figures in {out}/figures, a line an image in {out}/success_rate_*.csv"


def _tell_protocol(name: str, numbers: Mapping[str, Any]) -> Iterator[str]:
  top_k, eps = numbers["top_k"], numbers["budget"]["eps"]
  yield (
    f"Success rate, protocol {name}, {numbers['num_images']} images, top {top_k} prototypes, "
    f"eps {eps * 255:.3g}/255:"
  )
  for text, metric in (
    ("success with the first prototype", numbers["rate_at"]["1"]),
    (f"success with one of the first {top_k}", numbers["rate_at"][str(top_k)]),
    ("  by random noise of the same size", numbers["control"]["rate_at"][str(top_k)]),
    ("predicted class kept, of the successes", numbers["prediction_kept"]),
  ):
    yield f"  {text:<42} {tables.format_metric(metric)}"
  yield f"  {sample_text(numbers['sample'])}"
  if apart := numbers["num_not_attackable"]:
    yield f"  left out: {apart} images on which S covers the whole map"


def _rows(found: Mapping[str, Any]) -> list[dict]:
  rows = []
  for network, record in found.items():
    for protocol in (name for name in RULES if name in record):
      numbers = record[protocol]
      last = str(numbers["top_k"])
      rows.append(
        {
          "network": NETWORK_NAMES[network],
          "protocol": protocol,
          "first": numbers["rate_at"]["1"],
          "last": numbers["rate_at"][last],
          "control": numbers["control"]["rate_at"][last],
          "kept": numbers["prediction_kept"],
          "sample": sample_text(numbers["sample"]),
          "apart": numbers["num_not_attackable"],
        }
      )
  return rows


def _ablation_rows(found: Mapping[str, Any]) -> list[dict]:
  return [
    {"network": NETWORK_NAMES[network], **row}
    for network, record in found.items()
    for row in record.get("ablation") or []
  ]


PASSAGES = (
  Passage(
    heading="How often it succeeds (App. F.1)",
    caption="Success: among an image's most activated prototypes, one is found more strongly "
    "outside the place where it was than inside: its strongest cell lies outside. First: with the "
    "top prototype alone; all: with any of them. Control: random noise of the same size in the "
    "same places. Compare each network with its control, and networks with each other.",
    rows=_rows,
    columns={
      "network": "Network",
      "protocol": "Protocol",
      "first": "Success, first prototype",
      "last": "Success, all",
      "control": "Random noise",
      "kept": "Predicted class kept, of the successes",
      "sample": "Images",
      "apart": "Of these, cannot be attacked",
    },
    pictures=(
      Pictures(network="standard", pattern="success_at_k.png"),
      Pictures(network="adversarial", pattern="success_at_k.png"),
    ),
  ),
  Passage(
    heading="What the protocol changes",
    caption="Protocol paper is the method as the paper states it, authors what its code computes. "
    "Each row switches one of the differences on; compare its rate with the first row's.",
    rows=_ablation_rows,
    columns={
      "network": "Network",
      "setting": "Setting",
      "rate_first": "Success, first prototype",
      "rate": "Success, all",
      "prediction_kept": "Predicted class kept, of the successes",
    },
  ),
  Passage(
    heading="From which part to which",
    caption="Where a prototype sat on the clean image (rows) and where it is found after a "
    "successful attack (columns): the annotated part inside the box of high activation that is "
    "nearest to its peak; background, if the box holds none. Cells count images, colours are "
    "shares of a row. Off the diagonal the explanation names another part of the bird.",
    pictures=(
      Pictures(network="standard", pattern="parts_paper.png"),
      Pictures(network="adversarial", pattern="parts_paper.png"),
    ),
  ),
)
