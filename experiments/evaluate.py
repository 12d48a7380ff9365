"""Accuracy of a run: clean, altered by JPEG, and under attack, with 95% intervals.

  python -m experiments.evaluate --workdir=runs/demo/standard
  python -m experiments.evaluate --workdir=RUN --split=validation
  python -m experiments.evaluate --workdir=RUN --ensemble=RUN2,RUN3

clean: the images as they are (the paper's original test set). altered: those of the chosen classes
JPEG compressed (Table 2; config.jpeg says which and how strongly). altered_every_class: all of them
compressed, as the reference measured Table 4. robust: after PGD against the class (Table 3).
"""

import pathlib

import numpy as np
from absl import flags

from experiments import budget, cli
from jprotop import metrics
from jprotop.data import jpeg
from jprotop.evaluation import accuracy, robustness
from jprotop.figures import canvas, curves, tables
from jprotop.training import runs
from jprotop.training.runs import Run


def measure(run: Run, place: pathlib.Path, *, split_name: str = "test") -> dict:
  """All accuracies of a run on one of its splits; writes the confusion matrix as a figure."""
  split = run.dataset.split(split_name)
  size = run.config["training"]["evaluation_batch_size"]
  predict = lambda s: accuracy.predict(run.model, run.variables, s, batch_size=size)  # noqa: E731
  clean = predict(split)
  altered = predict(split.compressed(run.scheme))
  every = predict(split.compressed(jpeg.Scheme(run.scheme.quality)))
  numbers = {
    "clean": accuracy.accuracy(clean, split.label),
    **alterations(clean, altered, every, split.label, run.scheme),
    "robust": _robust(run, split, clean),
    "confusion": accuracy.confusion_matrix(clean, split.label).tolist(),
    "class_names": run.class_names,
    **({} if run.info["finished"] else {"finished_training": False}),
  }
  figure = curves.confusion(np.array(numbers["confusion"]), run.class_names)
  canvas.save(figure, place / f"figures/confusion_{split_name}.png")
  for name in ("clean", "altered", "altered_every_class", "robust"):
    print(
      f"{split_name} accuracy, {name.replace('_', ' '):<20} {tables.format_share(numbers[name])}"
    )
  return {"evaluate": {split_name: numbers}}


def alterations(
  clean: np.ndarray,
  altered: np.ndarray,
  every: np.ndarray,
  label: np.ndarray,
  scheme: jpeg.Scheme,
) -> dict:
  """What JPEG compression does to accuracy, from logits [N, C] of the same N images.

  Args:
    clean, altered, every: of the images as they are, compressed where the scheme says, and all
      compressed.
  """
  covered = scheme.covers(label)
  right = {name: s.argmax(axis=1) == label for name, s in (("clean", clean), ("altered", altered))}
  return {
    "altered": accuracy.accuracy(altered, label),
    "altered_every_class": accuracy.accuracy(every, label),
    "compressed_classes": {name: metrics.share(hits[covered]) for name, hits in right.items()},
    "uncompressed_classes": {"clean": metrics.share(right["clean"][~covered])},
    # Paired: the same images with and without the alteration.
    "altered_minus_clean": metrics.mean(right["altered"].astype(float) - right["clean"]),
  }


def _robust(run: Run, split, clean: np.ndarray) -> dict:
  """Only what is right on the clean image can stay right, so only that is attacked."""
  hits = clean.argmax(axis=1) == split.label
  indices = np.flatnonzero(hits)
  attacked = robustness.attacked_logits(
    run.model,
    run.variables,
    split,
    indices,
    **run.config["robust"],
    seed=run.config["seed"],
    batch_size=budget.rows(run),
  )
  hits[indices] = attacked.argmax(axis=1) == split.label[indices]
  return metrics.share(hits)


def ensemble(members: list[Run], split_name: str) -> dict:
  """Accuracy of summed logits, each network on the images as they are."""
  size = members[0].config["training"]["evaluation_batch_size"]
  split = members[0].dataset.split(split_name)
  scores = [accuracy.predict(m.model, m.variables, split, batch_size=size) for m in members]
  numbers = {
    "members": [str(m.workdir) for m in members],
    "clean": accuracy.accuracy(accuracy.sum_logits(scores), split.label),
    "single": [accuracy.accuracy(s, split.label) for s in scores],
  }
  print(f"{split_name} accuracy of {len(members)} networks {tables.format_share(numbers['clean'])}")
  return {"ensemble": {split_name: numbers}}


def main() -> None:
  given = flags.FLAGS
  if given.ensemble:
    cli.measure_run(
      "evaluate",
      lambda run, _: ensemble(
        [run, *(runs.open_run(w, run.dataset) for w in given.ensemble)], given.split
      ),
    )
  else:
    cli.measure_run("evaluate", measure, split_name=given.split)


if __name__ == "__main__":
  flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Which images.")
  flags.DEFINE_list("ensemble", [], "Other runs on the same data, whose logits are added.")
  cli.run(main)
