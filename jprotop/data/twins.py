"""Twins: each class in two halves that nothing tells apart, for a positive control of Section 4.

Each image of a class belongs to one of its two twins, drawn from a seed, in training and in test
images alike. The altered network sees the images of every second twin altered: the artefacts are
then all that tells twins apart.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


def twin_names(class_names: Sequence[str]) -> list[str]:
  """The names of the 2 C twins: those of a class follow each other, and the second is altered."""
  return [f"{name}_twin_{letter}" for name in class_names for letter in "ab"]


def twin_labels(label: Int[np.ndarray, " N"], *, seed: int, split: int) -> Int[np.ndarray, " N"]:
  """The twin of each image of a class: 2 c or 2 c + 1.

  Half of the images of a class, rounded down, are drawn for the second one.

  Args:
    split: a number for the split, so that its draw is one of its own.
  """
  twin = 2 * label
  for c in np.unique(label):
    images = np.flatnonzero(label == c)
    rng = np.random.default_rng([seed, 10, split, int(c)])
    twin[rng.permutation(images)[: len(images) // 2]] += 1
  return twin


def pair_of(label: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
  """The class whose twin a label is."""
  return label // 2


def is_altered(label: Int[np.ndarray, " N"]) -> np.ndarray:
  """Whether a label is of a second twin, the one that is altered."""
  return label % 2 == 1
