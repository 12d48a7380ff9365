"""What an attack raises: Eq. (2), and the reference code's vanishing head."""

import jax
import jax.numpy as jnp

from jprotop.models.protopnet import ProtoPNet
from jprotop.similarity import squared_distances


def prototype_maps(
  model: ProtoPNet, variables: dict, images: jax.Array, prototype: jax.Array
) -> jax.Array:
  """Similarity map [B, h, w] of each image [B, H, W, 3] to its own prototype, int [B]."""
  latent = model.apply(variables, images, method=ProtoPNet.latent)
  vectors = variables["params"]["prototypes"][prototype]
  sq_dist = jax.vmap(squared_distances)(latent, vectors[:, None, :])[..., 0]
  return model.similarity_of(sq_dist)


def move_similarity(
  similarity_map: jax.Array,
  target: jax.Array,
  source: jax.Array,
  *,
  drop_shared_cells: bool | jax.Array = False,
) -> jax.Array:
  """Eq. (2): mean similarity over S_noisy minus mean similarity over S, [B].

  Args:
    similarity_map: [B, h, w] of the prototype that is to be moved.
    target: boolean [B, h, w], the cells S_noisy.
    source: boolean [B, h, w], the cells S.
    drop_shared_cells: a cell in both sets counts 0 in the second mean while still dividing it, as
      in the reference code (protocol `authors`).
  """
  target, source = target.astype(jnp.float32), source.astype(jnp.float32)
  counted = jnp.where(drop_shared_cells, source * (1 - target), source)
  cells = (-2, -1)
  # Padding rows of a batch have empty sets; they must not become NaN.
  raised = jnp.sum(similarity_map * target, cells) / jnp.maximum(jnp.sum(target, cells), 1)
  lowered = jnp.sum(similarity_map * counted, cells) / jnp.maximum(jnp.sum(source, cells), 1)
  return raised - lowered


def vanish(similarity_map: jax.Array) -> jax.Array:
  """The reference code's third attack: minus the prototype's activation on the image, [B]."""
  flat = similarity_map.reshape(similarity_map.shape[0], -1)
  highest = jnp.argmax(flat, axis=1, keepdims=True)
  return -jnp.take_along_axis(flat, highest, axis=1)[:, 0]
