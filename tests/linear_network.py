"""A network whose robustness is known exactly: its logits are linear in the mean colours."""

import dataclasses
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from jprotop.prototypes.see import Network


@dataclasses.dataclass(frozen=True)
class Linear:
  """Stands where a ProtoPNet does: logits [N, C] are the mean colours [N, 3] times weights."""

  num_classes: int = 4

  def apply(self, variables, images):
    return SimpleNamespace(logits=images.mean(axis=(1, 2)) @ variables["weights"])


def linear_network(num_classes=4, seed=0):
  """(network, weights [3, C])."""
  weights = np.random.default_rng(seed).normal(size=(3, num_classes)).astype(np.float32)
  return Network(Linear(num_classes), {"weights": jnp.asarray(weights)}), weights
