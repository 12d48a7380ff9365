"""How much a user has to look at: sizes of the whole explanation and of one image's, sparsity.

Schlinge et al., "Comprehensive Evaluation of Prototype Neural Networks" (2025), whose code is
QuanProto, and Nauta et al., "PIP-Net" (CVPR 2023); docs/metrics/compactness.md.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from jprotop.errors import InputError
from jprotop.metrics.checks import Array
from jprotop.metrics.estimate import Estimate

# A weight that is not further from 0 is none.
NO_WEIGHT = 1e-5
THRESHOLD = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightCounts:
  """Counts of a last layer. It is not a sample of anything, so they have no interval.

  Attributes:
    global_size: prototypes with a weight for some class.
    positive, negative: weights above and below 0.
    total: all weights, P x C.
    sparsity: the share of weights that are 0.
    negative_share: the share of negative weights among those that are not 0; None without any.
  """

  global_size: int
  positive: int
  negative: int
  total: int

  @property
  def sparsity(self) -> float:
    return 1 - (self.positive + self.negative) / self.total

  @property
  def negative_share(self) -> float | None:
    weighted = self.positive + self.negative
    return self.negative / weighted if weighted else None


def weight_counts(weights: Float[Array, "P C"]) -> WeightCounts:
  """Global size, sparsity and negative reasoning of a last layer.

  Raises:
    InputError: the weights are not a finite matrix.
  """
  weights = np.asarray(weights)
  if weights.ndim != 2 or not weights.size or not np.isfinite(weights).all():
    raise InputError(
      f"weights, of the shape {weights.shape}, must be finite and [P, C]: prototypes, classes"
    )
  positive, negative = weights > NO_WEIGHT, weights < -NO_WEIGHT
  return WeightCounts(
    global_size=int((positive | negative).any(axis=1).sum()),
    positive=int(positive.sum()),
    negative=int(negative.sum()),
    total=weights.size,
  )


def global_size(weights: Float[Array, "P C"]) -> int:
  """How many prototypes have a weight for some class: all that a user would ever see."""
  return weight_counts(weights).global_size


def sparsity(weights: Float[Array, "P C"]) -> float:
  """The share of a last layer's weights that are 0."""
  return weight_counts(weights).sparsity


def local_size(activations: Float[Array, "N P"], *, threshold: float = THRESHOLD) -> Estimate:
  """How many prototypes are found in an image: a mean over images of a count, not a share.

  Args:
    activations: maxima of the similarity maps.
    threshold: a prototype is found where its activation is more than this share of the image's
      highest one.

  Raises:
    InputError: activations are not finite, or an image's highest one is not above 0, so that there
      is no share of it.
  """
  activations = np.asarray(activations)
  if activations.ndim != 2 or not activations.size or not np.isfinite(activations).all():
    raise InputError(
      f"activations, of the shape {activations.shape}, must be finite and [N, P]: images and "
      "prototypes"
    )
  highest = activations.max(axis=1, keepdims=True)
  if (highest <= 0).any():
    raise InputError(
      f"the highest activation of image {int((highest <= 0).argmax())} is {highest.min()}, so no "
      "other is a share of it; local size is for similarities above 0"
    )
  return Estimate.of_mean((activations / highest > threshold).sum(axis=1), "image")
