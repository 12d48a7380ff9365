"""Accuracy of a network: on clean images, on altered ones, and under attack, with 95% intervals.

  jprotop accuracy --workdir=runs/demo/standard
  jprotop accuracy --workdir=RUN --split=validation --eps=4/255

clean: the images as they are (the paper's original test set). altered: those of the chosen classes
altered, which is JPEG compressed in the paper (Table 2; config.measure.alteration).
altered_every_class: all of them, as the reference measured Table 4. pgd_accuracy: after PGD against
the class (Table 3; config.measure.class_pgd).
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Bool, Float, Int

from jprotop import statistics
from jprotop.attacks import class_pgd
from jprotop.attacks.budget import Budget
from jprotop.data.alterations import Scheme
from jprotop.data.dataset import Split
from jprotop.experiments.accuracy_claims import claims
from jprotop.experiments.accuracy_numbers import per_image
from jprotop.experiments.attacking import budget_flags, rows_of
from jprotop.experiments.experiment import Beside, Experiment, Flag, Passage, Pictures, register
from jprotop.files import ensure_folder
from jprotop.prototypes import accuracy, selectors
from jprotop.prototypes.see import see
from jprotop.report import canvas, curves, tables
from jprotop.report.paper_tables import NETWORK_NAMES
from jprotop.runs.records import Paired, Record, Share
from jprotop.runs.run import Run

_SHARES = ("clean", "altered", "altered_every_class", "pgd_accuracy")


class Classes(msgspec.Struct, forbid_unknown_fields=True):
  """Accuracy on some classes, as they are and, where they were, altered."""

  clean: Share
  altered: Share | None = None


class Hits(msgspec.Struct, forbid_unknown_fields=True):
  """Which images are right, in their order, as `prototypes.accuracy.packed` writes them.

  So any two networks, or two versions of the images, can be compared image by image.
  """

  clean: str
  altered: str
  pgd_accuracy: str


class SplitAccuracy(Record):
  """All accuracies on one split; altered_minus_clean is of paired images.

  classes are those whose images are altered, by an alteration with its parameter.
  """

  clean: Share
  altered: Share
  altered_every_class: Share
  altered_classes: Classes
  other_classes: Classes
  altered_minus_clean: Paired
  pgd_accuracy: Share
  hits: Hits
  alteration: str
  parameter: float
  classes: list[str]
  confusion: list[list[int]]
  class_names: list[str]
  finished_training: bool = True


def measure(
  run: Run, out: pathlib.Path, *, split: str = "test", beside: Beside | None = None
) -> dict:
  """All accuracies of a run on one of its splits; writes the confusion matrix as a figure."""
  images = run.dataset.split(split)
  size = run.config["compute"]["evaluation_batch_size"]
  clean, altered, every = (
    see(run.network, version, selectors.logits, batch_size=size)
    for version in (
      images,
      images.altered(run.scheme),
      images.altered(run.scheme.of_every_class()),
    )
  )
  right = {
    "clean": clean.argmax(axis=1) == images.label,
    "altered": altered.argmax(axis=1) == images.label,
    "pgd_accuracy": _right_under_pgd(run, images, clean),
  }
  numbers = {
    "clean": statistics.share(right["clean"]),
    **alterations(clean, altered, every, images.label, run.scheme),
    "pgd_accuracy": statistics.share(right["pgd_accuracy"]),
    "hits": {name: accuracy.packed(hits) for name, hits in right.items()},
    "alteration": run.scheme.name,
    "parameter": run.scheme.parameter,
    "classes": run.altered_class_names,
    "confusion": accuracy.confusion_matrix(clean, images.label).tolist(),
    "class_names": run.class_names,
    "finished_training": run.info["finished"],
  }
  ensure_folder(out / "figures")
  figure = curves.confusion(np.array(numbers["confusion"]), run.class_names)
  canvas.save(figure, out / f"figures/confusion_{split}.png")
  return {split: numbers}


def alterations(
  clean: Float[np.ndarray, "N C"],
  altered: Float[np.ndarray, "N C"],
  every: Float[np.ndarray, "N C"],
  label: Int[np.ndarray, " N"],
  scheme: Scheme,
) -> dict:
  """What an alteration does to accuracy, from logits of the same images.

  Args:
    clean, altered, every: of the images as they are, altered where the scheme says, and all
      altered.
  """
  covered = scheme.covers(label)
  right = {name: s.argmax(axis=1) == label for name, s in (("clean", clean), ("altered", altered))}
  return {
    "altered": accuracy.accuracy(altered, label),
    "altered_every_class": accuracy.accuracy(every, label),
    "altered_classes": {name: statistics.share(hits[covered]) for name, hits in right.items()},
    "other_classes": {"clean": statistics.share(right["clean"][~covered])},
    "altered_minus_clean": statistics.paired_difference(right["altered"], right["clean"]),
  }


def _right_under_pgd(
  run: Run, split: Split, clean: Float[np.ndarray, "N C"]
) -> Bool[np.ndarray, " N"]:
  """Only what is right on the clean image can stay right, so only that is attacked."""
  hits = clean.argmax(axis=1) == split.label
  indices = np.flatnonzero(hits)
  attacked = class_pgd.attacked_logits(
    run.network,
    split,
    indices,
    Budget(**run.config["measure"]["class_pgd"]),
    seed=run.config["measure"]["seed"],
    batch_size=rows_of(run),
  )
  hits[indices] = attacked.argmax(axis=1) == split.label[indices]
  return hits


def tell(record: Mapping[str, Any], out: pathlib.Path) -> Iterator[str]:
  """What the command prints."""
  for split, numbers in record.items():
    for name in _SHARES:
      text = tables.format_metric(numbers[name])
      yield f"{split} accuracy, {name.replace('_', ' '):<20} {text}"


def _rows(found: Mapping[str, Any]) -> list[dict]:
  return [
    {
      "network": NETWORK_NAMES[network],
      "split": split,
      **numbers,
      "chosen_altered": numbers["altered_classes"]["altered"],
      "chosen_clean": numbers["altered_classes"]["clean"],
      "other_clean": numbers["other_classes"]["clean"],
    }
    for network, record in found.items()
    for split, numbers in record.items()
  ]


register(
  Experiment(
    name="accuracy",
    summary="how often a network is right: on clean, altered and attacked images (Tables 1 to 4)",
    measure=measure,
    record=dict[str, SplitAccuracy],
    networks=("standard", "altered", "remedied", "adversarial"),
    settings=("class_pgd", "alteration", "seed"),
    parts={
      "table1": ("standard",),
      "table2": ("altered",),
      "table3": ("standard", "adversarial"),
      "table4": ("remedied",),
    },
    flags=(
      Flag(
        name="split",
        default="test",
        help="Which images.",
        choices=("train", "validation", "test"),
      ),
      *budget_flags("measure.class_pgd"),
    ),
    tell=tell,
    # Splits that are not measured now keep their numbers.
    merge=lambda before, now: {**(before or {}), **now},
    passages=(
      Passage(
        heading="Accuracies",
        caption="Altered: images of the chosen classes altered; all classes altered: the "
        "reference's second reading. Under PGD: after PGD against the class.",
        rows=_rows,
        columns={
          "network": "Network",
          "split": "Images",
          "clean": "Clean",
          "altered": "Altered",
          "altered_every_class": "All classes altered",
          "altered_minus_clean": "Altered minus clean",
          "pgd_accuracy": "Under PGD",
          "chosen_altered": "Chosen classes, altered",
          "chosen_clean": "Chosen classes, clean",
          "other_clean": "Other classes, clean",
        },
      ),
      Passage(
        heading="Which classes the standard network confuses",
        caption="Test images: rows are the true classes, columns the predicted ones.",
        pictures=(Pictures(network="standard", pattern="confusion_test.png"),),
      ),
    ),
    claims=claims,
    passes=lambda measure, _, count: count * (3 + 3 * measure["class_pgd"]["num_steps"]),
    per_image=per_image,
  )
)
