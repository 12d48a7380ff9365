"""The training loss of ProtoPNet (Chen et al. 2019, Section 2.2; weights in App. B).

Every function returns one value an image, or one scalar of the weights; means over a batch are
taken by the training step, which knows which images are padding and how many devices there are.
"""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Cross entropy [N] of logits [N, C] with integer labels [N]."""
  return optax.softmax_cross_entropy_with_integer_labels(logits, label)


def _nearest(sq_dist: jax.Array, allowed: jax.Array) -> jax.Array:
  """Smallest distance [N] among the allowed ones; the gradient goes to the first of equals."""
  nearest = jnp.argmin(jnp.where(allowed, sq_dist, jnp.inf), axis=1, keepdims=True)
  return jnp.take_along_axis(sq_dist, nearest, axis=1)[:, 0]


def _capped(cost: jax.Array, cap: float | None) -> jax.Array:
  return cost if cap is None else jnp.where(cost > cap, cap, cost)


def cluster_cost(
  min_sq_dist: jax.Array,
  label: jax.Array,
  prototype_class: jax.Array,
  *,
  cap: float | None = None,
) -> jax.Array:
  """Squared distance [N] from each image to the nearest prototype of its own class.

  Args:
    min_sq_dist: [N, P] smallest squared distance of each prototype over the image's patches.
    label: int [N].
    prototype_class: int [P].
    cap: the reference writes D - max((D - m) * own), which is D, without a gradient, where even
      the nearest distance m exceeds the latent depth D. `authors` gives D here; None: no cap.
  """
  return _capped(_nearest(min_sq_dist, prototype_class[None, :] == label[:, None]), cap)


def separation_cost(
  min_sq_dist: jax.Array,
  label: jax.Array,
  prototype_class: jax.Array,
  *,
  cap: float | None = None,
) -> jax.Array:
  """Squared distance [N] to the nearest prototype of any other class; arguments as above."""
  return _capped(_nearest(min_sq_dist, prototype_class[None, :] != label[:, None]), cap)


def incorrect_class_l1(kernel: jax.Array, prototype_class: jax.Array) -> jax.Array:
  """L1 norm of the last layer's weights [P, C] from prototypes to classes that are not theirs."""
  own = prototype_class[:, None] == jnp.arange(kernel.shape[1])[None, :]
  return jnp.sum(jnp.where(own, 0.0, jnp.abs(kernel)))
