"""How a network was trained: its curves, its prototypes as a gallery, and what the push cost.

jprotop training --workdir=runs/demo/standard
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np

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
from jprotop.runs.records import Paired, Record, Share
from jprotop.runs.run import Run


class Push(msgspec.Struct, forbid_unknown_fields=True):
  """Different patches among the prototypes, and test accuracy just before and after the push."""

  num_prototypes: int
  distinct: int
  accuracy_before: Share
  accuracy_after: Share


class Robustness(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
  """Validation accuracy under FGSM and PGD after the last epoch of an adversarial training.

  difference is FGSM minus PGD; parted are the epochs in which they lay apart, as history.jsonl
  counts them, of `epochs` checked (see training.overfitting).
  """

  epochs: int
  fgsm_accuracy: Share
  pgd_accuracy: Share
  difference: Paired
  parted: list[int]


class Training(Record):
  """What the push cost, and how robust an adversarial training was on the way; None where the
  history does not say."""

  push: Push | None
  robustness: Robustness | None = None


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
  return {"push": push_numbers(history), "robustness": robustness_numbers(history)}


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


def robustness_numbers(history: list[dict]) -> dict | None:
  """What the epochs of an adversarial training found, from the rows of history.jsonl."""
  rows = [row for row in history if "parted" in row]
  if not rows:
    return None
  last = rows[-1]
  total, only_a, only_b = last["attacked"], last["only_fgsm"], last["only_pgd"]
  both = round(last["fgsm_accuracy"] * total) - only_a
  counts = {"both": both, "only_a": only_a, "only_b": only_b}
  counts["neither"] = total - sum(counts.values())
  fgsm, pgd = (
    np.repeat([name in right for name in counts], list(counts.values()))
    for right in (("both", "only_a"), ("both", "only_b"))
  )
  return {
    "epochs": len(rows),
    "fgsm_accuracy": statistics.share(fgsm),
    "pgd_accuracy": statistics.share(pgd),
    "difference": statistics.paired_difference(fgsm, pgd),
    "parted": [row["epoch"] for row in rows if row["parted"]],
  }


def tell(record: Mapping[str, Any], out: pathlib.Path) -> Iterator[str]:
  """What the command prints."""
  if push := record["push"]:
    yield (
      f"Push: {push['distinct']} different patches for {push['num_prototypes']} prototypes; test "
      f"accuracy {tables.format_share(push['accuracy_before'])} before, "
      f"{tables.format_share(push['accuracy_after'])} after"
    )
  if found := record.get("robustness"):
    yield (
      f"Validation accuracy after the last epoch: {tables.format_share(found['fgsm_accuracy'])} "
      f"under FGSM, {tables.format_share(found['pgd_accuracy'])} under PGD; {_overfitting(found)}"
    )


def _overfitting(found: Mapping[str, Any]) -> str:
  """Whether, and where, FGSM and PGD parted, in words."""
  if not found["parted"]:
    return f"no catastrophic overfitting in {found['epochs']} epochs"
  epochs = ", ".join(map(str, found["parted"]))
  return (
    f"catastrophic overfitting in epoch {epochs}, counted from 0 ({found['epochs']} were checked)"
  )


def _rows(found: Mapping[str, Any]) -> list[dict]:
  return [
    {"network": NETWORK_NAMES[network], **record["push"]}
    for network, record in found.items()
    if record["push"]
  ]


def _robustness_rows(found: Mapping[str, Any]) -> list[dict]:
  return [
    {
      "network": NETWORK_NAMES[network],
      **record["robustness"],
      "overfitting": _overfitting(record["robustness"]),
    }
    for network, record in found.items()
    if record.get("robustness")
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
        heading="Was the adversarial training robust on its way?",
        caption="After every epoch, validation images were attacked by one step (FGSM) and by five "
        "(PGD). Where FGSM lies more than 20 points above PGD, and the 95% interval of the "
        "difference above 0, the training overfits to its own single step (catastrophic "
        "overfitting, Wong et al. 2020): the network withstands that step alone and is not robust. "
        "A cross marks such epochs in the curves above.",
        rows=_robustness_rows,
        columns={
          "network": "Network",
          "fgsm_accuracy": "Validation accuracy under FGSM, last epoch",
          "pgd_accuracy": "under PGD",
          "difference": "FGSM minus PGD",
          "overfitting": "Found",
        },
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
