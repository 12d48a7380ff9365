"""Accuracy with its interval, of one network or of several together."""

from collections.abc import Sequence

import numpy as np

from jprotop import statistics
from jprotop.data.dataset import Split
from jprotop.errors import InputError
from jprotop.prototypes import selectors
from jprotop.prototypes.see import Network, see


def sum_logits(scores: Sequence[np.ndarray]) -> np.ndarray:
  """An ensemble's class scores [N, C]: the sum of its networks' logits (Chen et al. 2019).

  Args:
    scores: of each network, [N, C], of the same images and classes.
  """
  shapes = {np.shape(s) for s in scores}
  if len(shapes) != 1:
    raise InputError(
      f"logits of shapes {sorted(shapes)} cannot be added; an ensemble's networks must see the "
      "same images and know the same classes"
    )
  return np.sum(scores, axis=0)


def correct(network: Network, split: Split, *, batch_size: int) -> np.ndarray:
  """Which un-augmented crops of a split are classified correctly, boolean [N]."""
  scores = see(network, split, selectors.logits, batch_size=batch_size)
  return scores.argmax(axis=1) == split.label


def accuracy(scores: np.ndarray, label: np.ndarray) -> dict:
  """Share of logits [N, C] whose maximum is at label [N], with its Wilson interval."""
  return statistics.share(scores.argmax(axis=1) == label)


def confusion_matrix(scores: np.ndarray, label: np.ndarray) -> np.ndarray:
  """Counts [C, C]: true class by predicted class."""
  classes = scores.shape[1]
  matrix = np.zeros((classes, classes), int)
  np.add.at(matrix, (label, scores.argmax(axis=1)), 1)
  return matrix
