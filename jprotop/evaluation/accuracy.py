"""Accuracy with its interval, and the forward passes that evaluation shares."""

from collections.abc import Callable, Iterator

import numpy as np

from jprotop import metrics, parallel
from jprotop.data import batches
from jprotop.data.dataset import Split
from jprotop.models.protopnet import ProtoPNet

EVALUATION_BATCH = 64


def outputs(model: ProtoPNet, variables: dict, batch: dict):
  """The record of one eval-mode forward pass over a batch {image, ...}."""
  return model.apply(variables, batch["image"])


def logits(model, variables: dict, batch: dict):
  """Class scores alone, of a ProtoPNet or a BackboneClassifier."""
  out = model.apply(variables, batch["image"])
  return getattr(out, "logits", out)


def over_split(
  function: Callable, model, variables: dict, split: Split, *, indices=None, batch_size=None
) -> Iterator:
  """`function(model, variables, batch)` over a split's un-augmented crops, as host arrays."""
  size = parallel.round_up(batch_size or EVALUATION_BATCH)
  crops = batches.in_order(split, size, indices)
  images = ({"image": batch["image"]} for batch in crops)
  return parallel.map_examples(function, (model,), variables, images, size)


def predict(model, variables: dict, split: Split, *, batch_size: int | None = None) -> np.ndarray:
  """Logits [N, C] of every image of a split."""
  return np.concatenate(list(over_split(logits, model, variables, split, batch_size=batch_size)))


def accuracy(scores: np.ndarray, label: np.ndarray) -> dict:
  """Share of logits [N, C] whose maximum is at label [N], with its Wilson interval."""
  return metrics.share(scores.argmax(axis=1) == label)


def confusion_matrix(scores: np.ndarray, label: np.ndarray) -> np.ndarray:
  """Counts [C, C]: true class by predicted class."""
  classes = scores.shape[1]
  matrix = np.zeros((classes, classes), int)
  np.add.at(matrix, (label, scores.argmax(axis=1)), 1)
  return matrix
