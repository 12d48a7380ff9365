"""Pruning: drops prototypes whose nearest training images are of other classes (ProtoPNet).

  python -m experiments.prune --workdir=runs/demo/standard --out=runs/pruned
  python -m experiments.prune --workdir=RUN --out=NEWRUN --neighbours=6 --threshold=3 --epochs=100

A prototype stays if at least --threshold of its --neighbours nearest training images are of its
class. Then the last layer is tuned for --epochs passes over the augmented training images. NEWRUN
is a run like any other: every command takes it as --workdir.
"""

import pathlib

import numpy as np
from absl import flags

from experiments import cli
from jprotop import explain
from jprotop.data.dataset import Split
from jprotop.errors import InputError
from jprotop.evaluation import accuracy
from jprotop.figures import tables
from jprotop.files import ensure_folder
from jprotop.training import last_layer, pruning
from jprotop.training.runs import Run


def define_flags() -> None:
  """The command's own flags; not at import, for other commands import this file."""
  flags.DEFINE_string("out", None, "Folder of the new run.")
  flags.DEFINE_integer("neighbours", 6, "Nearest training images looked at.", lower_bound=1)
  flags.DEFINE_integer("threshold", 3, "How many of them must be of the own class.", lower_bound=1)
  flags.DEFINE_integer("epochs", 100, "Passes that tune the last layer.", lower_bound=0)


def measure(
  run: Run,
  place: pathlib.Path,
  *,
  neighbours: int = 6,
  threshold: int = 3,
  epochs: int = 100,
) -> dict:
  """Writes the pruned run into `place`; accuracies are on the test set as the network saw it.

  Raises:
    InputError: `place` holds a run, the run is not finished, or no prototype would be left.
  """
  pruning.check_place(run, place)
  ensure_folder(place)
  labels = pruning.neighbour_labels(run, neighbours=neighbours)
  kept = pruning.choose(labels, run.model.prototype_class, threshold=threshold)
  model, variables, provenance = pruning.keep(run.model, run.variables, run.provenance, kept)
  tuned = last_layer.tune(model, variables, run.seen.train, run.config, epochs=epochs)
  pruning.write_run(run, place, model, tuned, provenance)
  test, batch_size = run.seen.test, run.config["training"]["evaluation_batch_size"]
  correct = lambda *network: _accuracy(*network, test, batch_size)  # noqa: E731
  left = {int(label) for label in model.prototype_class}
  numbers = {
    "from": str(run.workdir),
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
    "accuracy_before": correct(run.model, run.variables),
    "accuracy_pruned": correct(model, variables),
    "accuracy_after": correct(model, tuned),
  }
  _print_summary(place, numbers)
  return {"prune": numbers}


def _accuracy(model, variables: dict, split: Split, batch_size: int) -> dict:
  scores = accuracy.predict(model, variables, split, batch_size=batch_size)
  return accuracy.accuracy(scores, split.label)


def _print_summary(place: pathlib.Path, numbers: dict) -> None:
  print(f"Pruned {numbers['num_pruned']} of {numbers['num_prototypes_before']} prototypes")
  if bare := numbers["classes_without_prototypes"]:
    print(f"  classes left without a prototype: {', '.join(bare)}")
  for name, text in (
    ("purity_before", "nearest images of the own class, before"),
    ("purity", "  of the prototypes that are left"),
    ("accuracy_before", "test accuracy before"),
    ("accuracy_pruned", "  without the pruned prototypes"),
    ("accuracy_after", f"  after {numbers['epochs']} passes of the last layer"),
  ):
    print(f"  {text:<44} {tables.format_share(numbers[name])}")
  print(f"  the new run is in {place}")


def main() -> None:
  given = flags.FLAGS
  if not given.out:
    raise InputError("--out is missing; name a folder for the new run, as in --out=runs/pruned")
  cli.measure_run(
    "prune",
    measure,
    neighbours=given.neighbours,
    threshold=given.threshold,
    epochs=given.epochs,
  )


if __name__ == "__main__":
  define_flags()
  cli.run(main, trains=True)
