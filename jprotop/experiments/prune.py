"""Pruning: drops prototypes whose nearest training images are of other classes (ProtoPNet).

  jprotop prune --workdir=runs/demo/standard --out=runs/pruned
  jprotop prune --workdir=RUN --out=NEWRUN --neighbours=6 --threshold=3 --epochs=100

A prototype stays if at least --threshold of its --neighbours nearest training images are of its
class. Then the last layer is tuned for --epochs passes over the augmented training images. NEWRUN
is a run like any other: every command takes it as --workdir.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jprotop.experiments.experiment import Beside, Experiment, Flag, register
from jprotop.files import ensure_folder
from jprotop.prototypes import accuracy, explain, selectors
from jprotop.prototypes.see import Network, see
from jprotop.report import tables
from jprotop.runs.records import Mean, Record, Share
from jprotop.runs.run import Run
from jprotop.training import last_layer, pruning


class Prune(Record):
  """How many prototypes were dropped, and what that cost in accuracy; purity is as in Explain."""

  neighbours: int
  threshold: int
  epochs: int
  num_prototypes_before: int
  num_pruned: int
  num_prototypes: int
  pruned: list[int]
  classes_without_prototypes: list[str]
  purity_before: Mean
  purity: Mean
  accuracy_before: Share
  accuracy_pruned: Share
  accuracy_after: Share
  pruned_from: str


def measure(
  run: Run,
  out: pathlib.Path,
  *,
  neighbours: int = 6,
  threshold: int = 3,
  epochs: int = 100,
  beside: Beside | None = None,
) -> dict:
  """Writes the pruned run into `out`; accuracies are on the test set as the network saw it.

  Raises:
    InputError: `out` holds a run, the run is not finished, or no prototype would be left.
  """
  pruning.check_place(run, out)
  ensure_folder(out)
  labels = pruning.neighbour_labels(run, neighbours=neighbours)
  kept = pruning.choose(labels, run.model.prototype_class, threshold=threshold)
  model, variables, provenance = pruning.keep(run.model, run.variables, run.provenance, kept)
  tuned = last_layer.tune(model, variables, run.seen.train, run.config, epochs=epochs)
  pruning.write_run(run, out, model, tuned, provenance)
  left = set(model.prototype_class)
  return {
    "pruned_from": str(run.workdir),
    "neighbours": neighbours,
    "threshold": threshold,
    "epochs": epochs,
    "num_prototypes_before": len(kept),
    "num_pruned": int((~kept).sum()),
    "num_prototypes": int(kept.sum()),
    "pruned": np.flatnonzero(~kept).tolist(),
    "classes_without_prototypes": [n for c, n in enumerate(run.class_names) if c not in left],
    "purity_before": explain.purity(labels, run.model.prototype_class),
    "purity": explain.purity(labels[kept], model.prototype_class),
    "accuracy_before": _accuracy(run, run.network),
    "accuracy_pruned": _accuracy(run, Network(model, variables)),
    "accuracy_after": _accuracy(run, Network(model, tuned)),
  }


def _accuracy(run: Run, network: Network) -> dict:
  test, size = run.seen.test, run.config["compute"]["evaluation_batch_size"]
  scores = see(network, test, selectors.logits, batch_size=size)
  return accuracy.accuracy(scores, test.label)


def tell(record: Mapping[str, Any], out: pathlib.Path) -> Iterator[str]:
  """What the command prints."""
  yield f"Pruned {record['num_pruned']} of {record['num_prototypes_before']} prototypes"
  if bare := record["classes_without_prototypes"]:
    yield f"  classes left without a prototype: {', '.join(bare)}"
  for name, text in (
    ("purity_before", "nearest images of the own class, before"),
    ("purity", "  of the prototypes that are left"),
    ("accuracy_before", "test accuracy before"),
    ("accuracy_pruned", "  without the pruned prototypes"),
    ("accuracy_after", f"  after {record['epochs']} passes of the last layer"),
  ):
    yield f"  {text:<44} {tables.format_metric(record[name])}"
  yield f"  the new run is in {out}"


register(
  Experiment(
    name="prune",
    summary="a new run without the prototypes whose nearest images are of other classes",
    measure=measure,
    record=Prune,
    flags=(
      Flag(
        name="neighbours",
        kind=int,
        default=6,
        help="Nearest training images looked at.",
        least=1,
      ),
      Flag(
        name="threshold",
        kind=int,
        default=3,
        help="How many of them must be of the own class.",
        least=1,
      ),
      Flag(
        name="epochs",
        kind=int,
        default=100,
        help="Passes that tune the last layer.",
        least=0,
        most=100_000,
      ),
    ),
    tell=tell,
    trains=True,
    needs_out=True,
  )
)
