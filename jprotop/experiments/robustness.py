"""Accuracy under the worst of three attacks, with the eps of the adversarial training.

  jprotop robustness --workdir=runs/demo/adversarial
  jprotop robustness --workdir=RUN --num_steps=100 --targets=9 --queries=5000 --num_images=100000

Auto-PGD on the cross entropy, Auto-PGD on the difference of logits ratio with the likeliest other
classes as targets, and Square Attack, which needs no gradient: an image counts where it is right
after all of them, and after the paper's PGD, which also stands by itself. The second line takes as
many steps and queries as AutoAttack. The images are drawn from --seed, the same for every network.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from jprotop.attacks import against_class, class_pgd
from jprotop.attacks.budget import Budget
from jprotop.data.dataset import Split
from jprotop.experiments import robustness_numbers
from jprotop.experiments.accuracy_numbers import SMALL
from jprotop.experiments.attacking import SEED, count_flag, rows_of
from jprotop.experiments.experiment import Beside, Experiment, Flag, Passage, register
from jprotop.prototypes import selectors
from jprotop.prototypes.see import see
from jprotop.report import tables
from jprotop.report.paper_tables import NETWORK_NAMES
from jprotop.report.verdicts import Rule, of_metric, of_pairs
from jprotop.runs.run import Run


def measure(run: Run, out: pathlib.Path, *, beside: Beside | None = None) -> dict:
  """Accuracies of a run on drawn test images: clean, after PGD, and after each attack in turn."""
  test, measuring = run.dataset.test, run.config["measure"]
  settings, seed = measuring["robustness"], measuring["seed"]
  effort = robustness_numbers.effort_of(settings)
  images = robustness_numbers.drawn(settings["num_images"], len(test), seed)
  size = run.config["compute"]["evaluation_batch_size"]
  logits = see(run.network, test, selectors.logits, batch_size=size, indices=images)
  clean = logits.argmax(axis=1) == test.label[images]
  # Only what is right on the clean image can stay right, so only that is attacked.
  attacked = images[clean]
  found = against_class.misled(
    run.network, test, attacked, logits[clean], effort, seed=seed, batch_size=rows_of(run)
  )
  pgd = _right_under_pgd(run, test, attacked)
  return {
    "images": images.tolist(),
    "num_test_images": len(test),
    **{name: settings[name] for name in ("eps", "num_steps", "restarts", "targets", "queries")},
    "seed": seed,
    "pgd_num_steps": measuring["class_pgd"]["num_steps"],
    **robustness_numbers.summarise(
      clean, _spread(pgd, clean), {name: _spread(hits, clean) for name, hits in found.items()}
    ),
  }


def _spread(
  values: Bool[np.ndarray, " attacked"], where: Bool[np.ndarray, " N"]
) -> Bool[np.ndarray, " N"]:
  """Of attacked images as of all; False of the others."""
  spread = np.zeros(len(where), bool)
  spread[where] = values
  return spread


def _right_under_pgd(
  run: Run, split: Split, indices: Int[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
  """Which images are right after the paper's PGD, with the eps of the other attacks."""
  measuring = run.config["measure"]
  budget = Budget(**{**measuring["class_pgd"], "eps": measuring["robustness"]["eps"]})
  logits: Float[np.ndarray, "n C"] = class_pgd.attacked_logits(
    run.network, split, indices, budget, seed=measuring["seed"], batch_size=rows_of(run)
  )
  return logits.argmax(axis=1) == split.label[indices]


def tell(record: Mapping[str, Any], out: pathlib.Path) -> Iterator[str]:
  """What the command prints."""
  yield (
    f"Accuracy on {len(record['images'])} of {record['num_test_images']} test images, eps "
    f"{255 * record['eps']:.3g}/255:"
  )
  for text, name in (
    ("as they are", "clean"),
    (f"after PGD of {record['pgd_num_steps']} steps (the paper's)", "pgd"),
    (f"after Auto-PGD of {record['num_steps']} steps, cross entropy", "after_apgd_ce"),
    (f"  and with {record['targets']} targets, DLR", "after_apgd_targeted"),
    (f"  and Square Attack of {record['queries']} queries", "after_square"),
    ("  and PGD: the worst", "worst"),
  ):
    yield f"  {text:<50} {tables.format_share(record[name])}"
  if text := _masked(record):
    yield f"  {text}"


def _masked(record: Mapping[str, Any]) -> str | None:
  """A hint at masked gradients, where there is one."""
  if not (count := record["misled"]["square"]):
    return None
  return (
    f"{count} image{'s' * (count != 1)} that gradients did not mislead fell to Square Attack: "
    "gradients are masked, or had too few steps"
  )


def claims(results: Mapping[str, Any]) -> list[dict]:
  """What App. F.1 takes for granted."""
  pgd = robustness_numbers.difference(results, "pgd")
  worst = robustness_numbers.difference(results, "worst")
  return of_metric(
    "It raises accuracy under attack",
    "App. F.1",
    ("right under the worst of the attacks, adversarial minus standard training", worst),
    Rule(SMALL),
    note=f"; under PGD alone: {of_pairs(pgd)}" if pgd else "",
    ours=True,
  )


def _rows(found: Mapping[str, Any]) -> list[dict]:
  return [
    {
      **record,
      "network": NETWORK_NAMES[network],
      "eps": f"{255 * record['eps']:.3g}/255",
      "effort": f"{record['num_steps']} steps, {record['targets']} targets, {record['queries']} "
      "queries",
      "masked": _masked(record),
    }
    for network, record in found.items()
  ]


register(
  Experiment(
    name="robustness",
    summary="how often a network is right under the worst of three strong attacks",
    measure=measure,
    record=robustness_numbers.Robustness,
    networks=("standard", "adversarial"),
    settings=("robustness", "class_pgd", "seed"),
    parts={"table3": ("standard", "adversarial")},
    flags=(
      count_flag("measure.robustness", "num_images", "How many test images."),
      Flag(
        name="eps",
        kind=float,
        help="Largest change of a pixel value, in units of [0, 1]; that of the adversarial "
        "training unless it is given.",
        setting="measure.robustness.eps",
      ),
      count_flag("measure.robustness", "num_steps", "Steps of Auto-PGD, for each loss and target."),
      count_flag("measure.robustness", "restarts", "Random starts with the cross entropy."),
      count_flag(
        "measure.robustness", "targets", "Likeliest other classes that are targets in turn."
      ),
      count_flag("measure.robustness", "queries", "Of Square Attack, for each image."),
      SEED,
    ),
    tell=tell,
    passages=(
      Passage(
        heading="Accuracy under the strongest attacks",
        caption="All columns are of the same test images, the same for each network. PGD is the "
        "paper's, with a fixed step. Then three attacks in turn, each on the images that are "
        "still right: Auto-PGD on the cross entropy, Auto-PGD on the difference of logits ratio "
        "with the likeliest other classes as targets, and Square Attack, which uses no gradient. "
        "The worst accuracy, of images that are right after each of these and PGD, is what claims "
        "about robustness rest on.",
        rows=_rows,
        columns={
          "network": "Network",
          "eps": "Largest change",
          "clean": "Clean",
          "pgd": "PGD",
          "after_apgd_ce": "Auto-PGD, cross entropy",
          "after_apgd_targeted": "And Auto-PGD, targets",
          "after_square": "And Square Attack",
          "worst": "The worst",
          "effort": "Effort",
          "masked": "Gradients",
        },
      ),
    ),
    claims=claims,
  )
)
