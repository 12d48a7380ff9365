"""Catastrophic overfitting: FGSM and PGD on the validation images, and where the two part."""

import logging

import numpy as np
import pytest
from miniature import drawn_split

from jprotop import statistics
from jprotop.attacks import class_pgd
from jprotop.experiments import training
from jprotop.prototypes.see import Network
from jprotop.report import curves
from jprotop.training import overfitting

EPS = 8 / 255


def row(epoch, fgsm, pgd, total=24):
  """A row of history.jsonl, where what PGD leaves right FGSM does, too."""
  difference = statistics.paired_difference(np.arange(total) < fgsm, np.arange(total) < pgd)
  return {
    "phase": "joint",
    "epoch": epoch,
    "split": "validation",
    "accuracy": 1.0,
    "fgsm_accuracy": fgsm / total,
    "pgd_accuracy": pgd / total,
    "only_fgsm": fgsm - pgd,
    "only_pgd": 0,
    "attacked": total,
    "parted": overfitting.are_apart(difference),
  }


@pytest.mark.parametrize(
  ("fgsm", "pgd", "total", "parted"),
  [
    (24, 0, 24, True),  # As Wong et al. and Kim et al. describe it.
    (19, 17, 24, False),
    (20, 14, 24, True),
    (100, 80, 100, False),  # Exactly 20 points.
    (100, 79, 100, True),
    (2, 1, 3, False),  # 33 points, of which the interval is not sure.
    (0, 24, 24, False),
  ],
)
def test_the_two_part_where_fgsm_lies_20_points_higher_and_surely_higher(fgsm, pgd, total, parted):
  found = statistics.paired_difference(np.arange(total) < fgsm, np.arange(total) < pgd)
  assert overfitting.are_apart(found) == parted


def test_a_check_counts_what_the_two_attacks_leave_right(monkeypatch):
  split, tried = drawn_split(7, size=8), {}
  monkeypatch.setattr(overfitting, "MOST_IMAGES", 5)

  def attacked(network, images, indices, budget, **_):
    """FGSM leaves all but one image right, PGD that one alone."""
    tried[budget.num_steps] = (indices.tolist(), budget)
    first = np.arange(len(indices)) == 0
    right = ~first if budget.num_steps == 1 else first
    return np.eye(3)[(images.label[indices] + ~right) % 3]

  monkeypatch.setattr(class_pgd, "attacked_logits", attacked)
  found = overfitting.check(Network(None, {}), split, eps=EPS, seed=3, batch_size=4)
  assert found.pop("fgsm_accuracy") == 0.8 and found.pop("pgd_accuracy") == 0.2
  assert found == {"only_fgsm": 4, "only_pgd": 1, "attacked": 5, "parted": False}
  assert [place for place, _ in tried.values()] == [[0, 1, 3, 4, 6]] * 2
  fgsm, pgd = (tried[steps][1] for steps in (1, 5))
  assert fgsm.eps == pgd.eps == EPS
  assert fgsm.step_size == pytest.approx(10 / 255) and pgd.step_size == pytest.approx(2 / 255)


def test_a_training_that_parts_is_warned_of_and_marked(caplog):
  history = [row(0, 20, 18), row(1, 24, 1), row(2, 21, 17)]
  with caplog.at_level(logging.WARNING, "jprotop"):
    for found in history:
      overfitting.warn(found, "joint", EPS)
  (warning,) = caplog.messages
  assert "100% are right under FGSM, and 4% under PGD" in warning and "n_fgsm" in warning
  numbers = training.robustness_numbers(history)
  assert numbers["parted"] == [1] and numbers["epochs"] == 3
  assert numbers["fgsm_accuracy"]["count"] == 21 and numbers["pgd_accuracy"]["count"] == 17
  assert numbers["difference"]["only_a"] == 4
  told = " ".join(training.tell({"push": None, "robustness": numbers}, None))
  assert "catastrophic overfitting in epoch 1, counted from 0" in told
  (axes,) = curves.training_curves(history).axes
  crosses = [line for line in axes.lines if line.get_label() == "catastrophic overfitting"]
  assert [list(line.get_xdata()) for line in crosses] == [[1]]


def test_a_history_without_attacks_says_nothing_of_robustness():
  assert training.robustness_numbers([{"phase": "joint", "epoch": 0, "split": "train"}]) is None
