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
    first, rate = (tables.format_metric(row[name]) for name in ("kept_first", "kept"))
    yield f"  {row['setting']}\n    class kept: first prototype {first}, all {rate}"
    first, rate = (tables.format_metric(row[name]) for name in ("rate_first", "rate"))
    yield f"    whatever the class: first prototype {first}, all {rate}"
  yield f"  figures in {out}/figures, a line an image in {out}/success_rate_*.csv"


def _tell_protocol(name: str, numbers: Mapping[str, Any]) -> Iterator[str]:
  top_k, eps = numbers["top_k"], numbers["budget"]["eps"]
  yield (
    f"Success rate, protocol {name}, {numbers['num_images']} images, top {top_k} prototypes, "
    f"eps {eps * 255:.3g}/255:"
  )
  control, last = numbers["control"], str(top_k)
  for text, metric in (
    ("moved, class kept, first prototype", numbers["kept"]["rate_at"]["1"]),
    (f"  one of the first {top_k}", numbers["kept"]["rate_at"][last]),
    ("  by random noise of the same size", control["kept"]["rate_at"][last]),
    ("moved, whatever the class, first prototype", numbers["rate_at"]["1"]),
    (f"  one of the first {top_k}", numbers["rate_at"][last]),
    ("  by random noise of the same size", control["rate_at"][last]),
    ("  predicted class kept, of these", numbers["prediction_kept"]),
    *((MOVED[name], metric) for name, metric in numbers["displacement"].items()),
  ):
    yield f"  {text:<42} {tables.format_metric(metric)}"
  yield f"  {sample_text(numbers['sample'])}"
  if apart := numbers["num_not_attackable"]:
    bound = tables.format_metric(numbers["rate_of_all_at"][last])
    yield f"  left out: {apart} images on which S covers the whole map; these as failures: {bound}"


# What a success that keeps the class looks like, by the names of `Displacement`.
MOVED = {
  "distance_cells": "of the successes: distance in cells",
  "distance_share": "  as a share of the image's side",
  "margin": "  similarity outside S minus inside",
  "off_part": "  off the part that it sat on",
  "off_bird": "  off the hull of the bird's parts",
}


def _rows(found: Mapping[str, Any]) -> list[dict]:
  """Two rows a network and protocol: with the class kept, and whatever the class."""
  return [
    {
      **row,
      "success": what,
      "first": rates["rate_at"]["1"],
      "last": rates["rate_at"][row["last"]],
      "last_of_all": rates["rate_of_all_at"][row["last"]],
      "control": control["rate_at"][row["last"]],
      "images": _images(numbers["sample"], rates["num_not_attackable"]),
    }
    for row, numbers in _protocols(found)
    for what, rates, control in (
      ("moved, class kept", numbers["kept"], numbers["control"]["kept"]),
      ("moved", numbers, numbers["control"]),
    )
  ]


def _protocols(found: Mapping[str, Any]) -> Iterator[tuple[dict, Mapping[str, Any]]]:
  """What names a network and protocol, and its numbers."""
  for network, record in found.items():
    for protocol in (name for name in RULES if name in record):
      numbers = record[protocol]
      yield (
        {
          "network": NETWORK_NAMES[network],
          "protocol": protocol,
          "last": str(numbers["top_k"]),
        },
        numbers,
      )


def _images(sample: Mapping[str, int], left_out: int) -> str:
  return sample_text(sample) + (f", {left_out} of these left out" if left_out else "")


def _distances(found: Mapping[str, Any]) -> list[dict]:
  return [
    {**row, **numbers["displacement"], "kept": numbers["prediction_kept"]}
    for row, numbers in _protocols(found)
  ]


def _ablation_rows(found: Mapping[str, Any]) -> list[dict]:
  return [
    {"network": NETWORK_NAMES[network], **row}
    for network, record in found.items()
    for row in record.get("ablation") or []
  ]


PASSAGES = (
  Passage(
    heading="How often it succeeds (App. F.1)",
    caption="Moved: among an image's most activated prototypes, one is found more strongly "
    "outside the place where it was than inside: its strongest cell lies outside. That is what "
    "App. F.1 counts. Class kept: and the predicted class did not change; the attack goes on to "
    "the next prototype until that. First: with the top prototype alone; all: with any of them. "
    "Random noise: of the same size in the same places. Where an image could not be attacked, or "
    "was dropped on the way (protocol authors), the rate without such images and the rate with "
    "them as failures are bounds of what was hidden. Compare each network with its control, and "
    "networks with each other.",
    rows=_rows,
    columns={
      "network": "Network",
      "protocol": "Protocol",
      "success": "Success",
      "first": "First prototype",
      "last": "All",
      "last_of_all": "All; left out as failures",
      "control": "All, by random noise",
      "images": "Images",
    },
    pictures=(
      Pictures(network="standard", pattern="success_at_k.png"),
      Pictures(network="adversarial", pattern="success_at_k.png"),
    ),
  ),
  Passage(
    heading="How far the prototypes moved",
    caption="Of the successes that keep the class, from the strongest cell of the clean map to "
    "that of the attacked one. Share of the side: the distance with the image's height and width "
    "as units. Margin: by how much the similarity is higher outside the place where it was. Off "
    "the part: of the prototypes that sat on an annotated part, those found on another one, or on "
    "none. Off the bird: the strongest cell lies wholly outside of the convex hull of the visible "
    "parts; the bird itself reaches a little further. The last column is of all images on which a "
    "prototype moved: whether the first success kept the class.",
    rows=_distances,
    columns={
      "network": "Network",
      "protocol": "Protocol",
      "distance_cells": "Distance in cells",
      "distance_share": "Share of the side",
      "margin": "Margin",
      "off_part": "Off the part",
      "off_bird": "Off the bird",
      "kept": "Class kept, of the first successes",
    },
  ),
  Passage(
    heading="What the protocol changes",
    caption="Protocol paper is the method as the paper states it, authors what its code computes. "
    "Each row switches one of the differences on; compare its rate with the first row's.",
    rows=_ablation_rows,
    columns={
      "network": "Network",
      "setting": "Setting",
      "kept_first": "Moved and class kept, first",
      "kept": "Moved and class kept, all",
      "rate_first": "Moved, first",
      "rate": "Moved, all",
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
