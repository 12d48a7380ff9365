"""Accuracy of a run on one of its splits, with its 95% interval and its confusion matrix.

python -m experiments.evaluate --workdir=runs/demo --split=test
"""

import pathlib

from absl import flags

import jprotop
from experiments import cli
from jprotop.data.dataset import Dataset
from jprotop.evaluation import accuracy, results
from jprotop.figures import canvas, curves, tables
from jprotop.training import runs


def evaluate(workdir: pathlib.Path, dataset: Dataset | None = None, split_name: str = "test"):
  """Writes evaluate.SPLIT into results.json, and the confusion matrix as a figure."""
  model, variables, info = jprotop.load(str(workdir))
  dataset = runs.dataset_of(info, dataset)
  split = dataset.split(split_name)
  size = info["config"]["training"]["evaluation_batch_size"]
  scores = accuracy.predict(model, variables, split, batch_size=size)
  matrix = accuracy.confusion_matrix(scores, split.label)
  numbers = {
    "accuracy": accuracy.accuracy(scores, split.label),
    "confusion": matrix.tolist(),
    "class_names": dataset.class_names,
    **({} if info["finished"] else {"finished_training": False}),
  }
  before = results.read_results(workdir).get("evaluate", {})
  sections = {"evaluate": {**before, split_name: numbers}}
  results.update_results(workdir, info["config"], "evaluate", **sections)
  canvas.save(
    curves.confusion(matrix, dataset.class_names), workdir / f"figures/confusion_{split_name}.png"
  )
  print(f"{split_name} accuracy {tables.format_share(numbers['accuracy'])}")


def main() -> None:
  evaluate(cli.workdir(must_exist=True), split_name=flags.FLAGS.split)


if __name__ == "__main__":
  flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Which images.")
  cli.run(main)
