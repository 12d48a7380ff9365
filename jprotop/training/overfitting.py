"""Catastrophic overfitting: an adversarial training that withstands one step, and not several.

Training with single-step attacks can end, within an epoch, in a network that is right on almost
all images of FGSM and on almost none of PGD (Wong et al. 2020, Section 5.4; Kim et al. 2021). So
both are tried on the validation images after every adversarial epoch. Wong et al. stop where the
accuracy under PGD of 5 steps falls by more than 20 points from one epoch to the next. Here those 20
points are how far FGSM may lie above PGD on the same images, which needs no epoch before; and as
there may be few images, Tango's 95% interval of the difference must also lie above 0.
"""

import logging

import numpy as np

from jprotop import statistics
from jprotop.attacks import class_pgd
from jprotop.attacks.budget import Budget
from jprotop.data.dataset import Split
from jprotop.prototypes.see import Network

_log = logging.getLogger("jprotop")

APART = 0.2
# Of a large split only so many are attacked, evenly spread.
MOST_IMAGES = 200


def budgets(eps: float) -> dict[str, Budget]:
  """The two attacks: with Wong et al.'s steps, 10/255 for FGSM and 2/255 for PGD at an eps of
  8/255."""
  return {
    "fgsm": Budget(eps=eps, step_size=min(1.25 * eps, 1.0), num_steps=1),
    "pgd": Budget(eps=eps, step_size=eps / 4, num_steps=5),
  }


def check(network: Network, split: Split, *, eps: float, seed: int, batch_size: int) -> dict:
  """What a row of history.jsonl says of a network's accuracy under both attacks.

  Args:
    eps: of the training, in units of [0, 1].
    seed: of the random starts.

  Returns:
    fgsm_accuracy and pgd_accuracy, shares of `attacked` images; only_fgsm and only_pgd, how many
    are right under the one alone; parted, whether the two lie apart by the rule above.
  """
  chosen = np.linspace(0, len(split) - 1, min(MOST_IMAGES, len(split))).astype(int)
  right = {
    name: class_pgd.attacked_logits(
      network, split, chosen, budget, seed=seed, batch_size=batch_size, title=None
    ).argmax(axis=1)
    == split.label[chosen]
    for name, budget in budgets(eps).items()
  }
  difference = statistics.paired_difference(right["fgsm"], right["pgd"])
  return {
    **{f"{name}_accuracy": float(hits.mean()) for name, hits in right.items()},
    "only_fgsm": difference["only_a"],
    "only_pgd": difference["only_b"],
    "attacked": difference["total"],
    "parted": are_apart(difference),
  }


def are_apart(difference: dict) -> bool:
  """Whether FGSM minus PGD, of `statistics.paired_difference`, is more than 20 points and sure to
  be above 0."""
  return difference["value"] > APART and difference["interval"][0] > 0


def warn(row: dict, phase: str, eps: float) -> None:
  """Says so where a row of `check` is of a network that overfits."""
  if row["parted"]:
    _log.warning(
      "phase %s: of %d validation images %.0f%% are right under FGSM, and %.0f%% under PGD (eps "
      "%.3g/255): this is catastrophic overfitting, and the network is not robust. In another "
      "--workdir --config.train.adversarial.method=n_fgsm or pgd, a smaller eps or a lower rate "
      "may prevent it",
      phase,
      row["attacked"],
      100 * row["fgsm_accuracy"],
      100 * row["pgd_accuracy"],
      255 * eps,
    )
