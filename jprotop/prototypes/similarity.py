"""Eq. (1): how near a latent patch is to a prototype, and how that becomes a similarity."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

EPSILON = 1e-4  # of Eq. (1); a patch equal to its prototype scores log(1 / EPSILON) = 9.2103


def squared_distances(
  latent: Float[Array, "*n D"], prototypes: Float[Array, "P D"]
) -> Float32[Array, "*n P"]:
  """Squared L2 distance of every latent patch to every prototype, by the expanded square.

  Computed in float32 at the highest matrix precision whatever comes in: near zero the slope of
  Eq. (1) is 1 / EPSILON, and bfloat16 or TF32 products would ruin it. What rounding leaves below
  zero is cut off; expect an absolute error of about 1e-5.
  """
  latent = latent.astype(jnp.float32)
  prototypes = prototypes.astype(jnp.float32)
  product = jnp.einsum("...d,pd->...p", latent, prototypes, precision=jax.lax.Precision.HIGHEST)
  patch_norm = jnp.sum(latent**2, axis=-1, keepdims=True)
  prototype_norm = jnp.sum(prototypes**2, axis=-1)
  prototype_norm = jnp.expand_dims(prototype_norm, tuple(range(latent.ndim - 1)))
  # relu, not maximum: its slope at 0 is 0, where maximum's is one half.
  return jax.nn.relu(patch_norm - 2 * product + prototype_norm)


def exact_squared_distance(
  patches: Float[Array | np.ndarray, "*#n D"], prototypes: Float[Array | np.ndarray, "*#n D"]
) -> Float32[Array, "*n"]:
  """Squared L2 distance of pairs, by direct subtraction: exactly 0 for equal vectors."""
  difference = patches.astype(jnp.float32) - prototypes.astype(jnp.float32)
  return jnp.sum(difference**2, axis=-1)


def l2_distance(sq_dist: Float[Array, "*n"]) -> Float[Array, "*n"]:
  """Square root whose gradient at 0 is 0 instead of infinite."""
  positive = sq_dist > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, sq_dist, 1.0)), 0.0)


def log_similarity(distance: Float[Array, "*n"], epsilon: float = EPSILON) -> Float[Array, "*n"]:
  """Eq. (1): log((d + 1) / (d + epsilon)) for distances d >= 0."""
  return jnp.log((distance + 1) / (distance + epsilon))


def linear_similarity(distance: Float[Array, "*n"]) -> Float[Array, "*n"]:
  """ProtoPNet's other choice: -d."""
  return -distance


SIMILARITIES: dict[str, Callable[[jax.Array], jax.Array]] = {
  "log": log_similarity,
  "linear": linear_similarity,
}
# Eq. (1) prints the unsquared norm; the authors' code, and our default, use the squared one.
DISTANCES: dict[str, Callable[[jax.Array], jax.Array]] = {
  "squared_l2": lambda sq_dist: sq_dist,
  "l2": l2_distance,
}


def similarity_from_squared(
  sq_dist: Float[Array, "*n"], *, similarity: str, distance: str
) -> Float[Array, "*n"]:
  """Similarity from squared distances, by the names in SIMILARITIES and DISTANCES."""
  return SIMILARITIES[similarity](DISTANCES[distance](sq_dist))


def first_max(maps: Float[Array, "N h w P"]) -> Float[Array, "N P"]:
  """Maximum over the cells of maps.

  Unlike `jnp.max` the gradient is not split over ties: it goes to the first cell in row-major
  order, as in PyTorch.
  """
  flat = maps.reshape(maps.shape[0], -1, maps.shape[-1])
  first = jnp.argmax(flat, axis=1, keepdims=True)
  return jnp.take_along_axis(flat, first, axis=1)[:, 0]
