"""Accuracy with its interval, of one network or of several together."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from jprotop import statistics
from jprotop.data.dataset import Split
from jprotop.errors import InputError
from jprotop.prototypes import selectors
from jprotop.prototypes.see import Network, see


def sum_logits(scores: Sequence[Float[np.ndarray, "_ _"]]) -> Float[np.ndarray, "N C"]:
  """An ensemble's class scores: the sum of its networks' logits (Chen et al. 2019).

  Args:
    scores: of each network, of the same images and classes.

  Raises:
    InputError: their shapes differ.
  """
  shapes = {np.shape(s) for s in scores}
  if len(shapes) != 1:
    raise InputError(
      f"logits of shapes {sorted(shapes)} cannot be added; an ensemble's networks must see the "
      "same images and know the same classes"
    )
  return np.sum(scores, axis=0)


def correct(network: Network, split: Split, *, batch_size: int) -> Bool[np.ndarray, " N"]:
  """Which un-augmented crops of a split are classified correctly."""
  scores = see(network, split, selectors.logits, batch_size=batch_size)
  return scores.argmax(axis=1) == split.label


def accuracy(scores: Real[np.ndarray, "N C"], label: Int[np.ndarray, " N"]) -> dict:
  """Share of logits whose maximum is at the label, with its Wilson interval."""
  return statistics.share(scores.argmax(axis=1) == label)


def packed(hits: Bool[np.ndarray, " N"]) -> str:
  """Which of N images are right, as hexadecimal digits; the first bit is the first image's."""
  return np.packbits(hits).tobytes().hex()


def unpacked(digits: str, count: int) -> Bool[np.ndarray, " {count}"]:
  """What `packed` was given, of `count` images."""
  return np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8), count=count).astype(bool)


def packed_numbers(values: Real[np.ndarray, " N"]) -> str:
  """N numbers as hexadecimal digits: those of 32-bit floats, the lowest byte first."""
  return values.astype("<f4").tobytes().hex()


def unpacked_numbers(digits: str) -> Float[np.ndarray, " N"]:
  """What `packed_numbers` was given, to 32 bits."""
  return np.frombuffer(bytes.fromhex(digits), "<f4").astype(np.float64)


def confusion_matrix(
  scores: Real[np.ndarray, "N C"], label: Int[np.ndarray, " N"]
) -> Int[np.ndarray, "C C"]:
  """Counts, true class by predicted class."""
  classes = scores.shape[1]
  matrix = np.zeros((classes, classes), int)
  np.add.at(matrix, (label, scores.argmax(axis=1)), 1)
  return matrix
