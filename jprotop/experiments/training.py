"""How a network was trained: its curves, its prototypes as a gallery, and what the push cost.

jprotop training --workdir=runs/demo/standard
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from jprotop import statistics
from jprotop.experiments.attacking import source_of
from jprotop.experiments.experiment import (
  Beside,
  Experiment,
  Passage,
  Pictures,
  register,
)
from jprotop.files import ensure_folder
from jprotop.report import canvas, curves, panels, tables
from jprotop.report.paper_tables import NETWORK_NAMES
from jprotop.runs.config import NETWORKS
from jprotop.runs.history import read_history
from jprotop.runs.records import Record, Share
from jprotop.runs.run import Run


class Push(msgspec.Struct, forbid_unknown_fields=True):
  """Different patches among the prototypes, and test accuracy just before and after the push."""

  num_prototypes: int
  distinct: int
  accuracy_before: Share
  accuracy_after: Share


class Training(Record):
  """What the push cost; None where the history has none."""

  push: Push | None


def measure(run: Run, out: pathlib.Path, *, beside: Beside | None = None) -> dict:
  """Draws curves and gallery; returns the record."""
  ensure_folder(out / "figures")
  history = read_history(run.workdir, run.info["position"])
  if history:
    canvas.save(curves.training_curves(history), out / "figures/training_curves.png")
  if run.provenance is not None:
    prototypes = (source_of(run, j) for j in range(len(run.model.prototype_class)))
    for number, page in enumerate(panels.prototype_gallery(prototypes)):
      canvas.save(page, out / f"figures/gallery_{number:03d}.png")
  return {"push": push_numbers(history)}


def push_numbers(history: list[dict]) -> dict | None:
  """What the push cost, from the rows of history.jsonl."""
  rows = [row for row in history if row["phase"] == "push"]
  summary = next((row for row in rows if "num_prototypes" in row), None)
  tested = next((row for row in rows if row.get("split") == "test"), None)
  if summary is None or tested is None:
    return None
  before, after = (
    statistics.share([i < count for i in range(tested["count"])])
    for count in (tested["correct_before"], tested["correct"])
  )
  return {
    "num_prototypes": summary["num_prototypes"],
    "distinct": summary["distinct"],
    "accuracy_before": before,
    "accuracy_after": after,
  }


def tell(record: Mapping[str, Any], out: pathlib.Path) -> Iterator[str]:
  """What the command prints."""
  if push := record["push"]:
    yield (
      f"Push: {push['distinct']} different patches for {push['num_prototypes']} prototypes; test "
      f"accuracy {tables.format_share(push['accuracy_before'])} before, "
      f"{tables.format_share(push['accuracy_after'])} after"
    )


def _rows(found: Mapping[str, Any]) -> list[dict]:
  return [
    {"network": NETWORK_NAMES[network], **record["push"]}
    for network, record in found.items()
    if record["push"]
  ]


register(
  Experiment(
    name="training",
    summary="how a network was trained: curves, prototypes, and what the push cost",
    measure=measure,
    record=Training,
    networks=tuple(NETWORKS),
    tell=tell,
    passages=(
      Passage(
        heading="How the networks were trained",
        caption="Accuracy and losses over the epochs of the phases. The push replaces every "
        "prototype by a patch of a training image; a drop there is what that costs before the last "
        "layer is tuned.",
        rows=_rows,
        columns={
          "network": "Network",
          "num_prototypes": "Prototypes",
          "distinct": "Different patches among them",
          "accuracy_before": "Test accuracy just before the push",
          "accuracy_after": "just after",
        },
        pictures=tuple(Pictures(network=n, pattern="training_curves.png") for n in NETWORKS),
      ),
      Passage(
        heading="The standard network's prototypes",
        caption="Each prototype is a patch of a training image of its class: the patch above, the "
        "image below with the box of high activation. Further pages, and those of the other "
        "networks, are in their figures/ folders.",
        pictures=(Pictures(network="standard", pattern="gallery_*.png", most=3),),
      ),
    ),
  )
)
