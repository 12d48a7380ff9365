"""The training loss of ProtoPNet (Chen et al. 2019, Section 2.2; weights in App. B).

Every function returns one value an image, or one scalar of the weights; means over a batch are
taken by the training step, which knows which images are padding and how many devices there are.
"""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int


def cross_entropy(logits: Float[Array, "N C"], label: Int[Array, " N"]) -> Float[Array, " N"]:
  """Cross entropy of logits with the images' classes."""
  return optax.softmax_cross_entropy_with_integer_labels(logits, label)


def _nearest(sq_dist: Float[Array, "N P"], allowed: Bool[Array, "N P"]) -> Float[Array, " N"]:
  """Smallest distance among the allowed ones; the gradient goes to the first of equals."""
  nearest = jnp.argmin(jnp.where(allowed, sq_dist, jnp.inf), axis=1, keepdims=True)
  return jnp.take_along_axis(sq_dist, nearest, axis=1)[:, 0]


def _capped(cost: Float[Array, " N"], cap: float | None) -> Float[Array, " N"]:
  return cost if cap is None else jnp.where(cost > cap, cap, cost)


def cluster_cost(
  min_sq_dist: Float[Array, "N P"],
  label: Int[Array, " N"],
  prototype_class: Int[Array, " P"],
  *,
  cap: float | None = None,
) -> Float[Array, " N"]:
  """Squared distance from each image to the nearest prototype of its own class.

  Args:
    min_sq_dist: smallest squared distance of each prototype over the image's patches.
    cap: the reference writes D - max((D - m) * own), which is D, without a gradient, where even
      the nearest distance m exceeds the latent depth D. `authors` gives D here; None: no cap.
  """
  return _capped(_nearest(min_sq_dist, prototype_class[None, :] == label[:, None]), cap)


def separation_cost(
  min_sq_dist: Float[Array, "N P"],
  label: Int[Array, " N"],
  prototype_class: Int[Array, " P"],
  *,
  cap: float | None = None,
) -> Float[Array, " N"]:
  """Squared distance to the nearest prototype of any other class; arguments as above."""
  return _capped(_nearest(min_sq_dist, prototype_class[None, :] != label[:, None]), cap)


def incorrect_class_l1(
  kernel: Float[Array, "P C"], prototype_class: Int[Array, " P"]
) -> Float[Array, ""]:
  """L1 norm of the last layer's weights from prototypes to classes that are not theirs."""
  own = prototype_class[:, None] == jnp.arange(kernel.shape[1])[None, :]
  return jnp.sum(jnp.where(own, 0.0, jnp.abs(kernel)))
