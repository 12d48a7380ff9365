"""What of a forward pass is kept: selectors for `see`, from (Output, batch) to arrays [N, ...]."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jprotop.prototypes.protopnet import Output


def logits(out: Output | Float[Array, "N C"], batch: dict) -> Float[Array, "N C"]:
  """Class scores alone, of a ProtoPNet or a BackboneClassifier."""
  return out if isinstance(out, Array) else out.logits


def scores(out: Output, batch: dict) -> dict:
  """logits [N, C] and activations [N, P]."""
  return {"logits": out.logits, "activations": out.activations}


def costs(out: Output, batch: dict) -> dict:
  """activations [N, P], and cluster and separation cost [N, 2] of images of classes `label`, int
  [N], to prototypes of classes `prototype_class`, int [P]."""
  found = batch["head"].costs(out, batch["label"], batch["prototype_class"])
  return {"activations": out.activations, "costs": jnp.stack(found, axis=-1)}


def maps(out: Output, batch: dict) -> dict:
  """The scores, and similarity_map [N, h, w, P]."""
  return {**scores(out, batch), "similarity_map": out.similarity_map}


def everything(out: Output, batch: dict) -> dict:
  """The scores, similarity_map and sq_dist [N, h, w, P]."""
  return {**maps(out, batch), "sq_dist": out.sq_dist}


def own_maps(out: Output, batch: dict) -> dict:
  """The scores, and the maps of each image's own `prototypes`, int [N, K]: similarity_maps
  [N, K, h, w]."""
  own = jnp.take_along_axis(out.similarity_map, batch["prototypes"][:, None, None, :], axis=-1)
  return {**scores(out, batch), "similarity_maps": jnp.moveaxis(own, -1, 1)}


def chosen_maps(out: Output, batch: dict) -> Float[Array, "N h w Q"]:
  """The maps of prototypes `chosen` for all images, int [Q]."""
  return out.similarity_map[..., batch["chosen"]]


def cells(out: Output, batch: dict) -> dict:
  """The scores, and the cell (row, column) where each prototype is highest, int16 [N, P, 2]; of
  equals the first in row-major order."""
  count, _, width, prototypes = out.similarity_map.shape
  place = out.similarity_map.reshape(count, -1, prototypes).argmax(axis=1)
  # A grid has far fewer than 2 ** 15 rows.
  cell = jnp.stack([place // width, place % width], axis=-1).astype(jnp.int16)
  return {**scores(out, batch), "cell": cell}


def nearest(out: Output, batch: dict) -> dict:
  """Each image's nearest patch to each of the prototypes `chosen`, int [Q]: nearness and sq_dist
  [N, Q] and cell int [N, Q, 2]; of equals the first in row-major order."""
  width = out.sq_dist.shape[2]
  maps = {"nearness": batch["head"].nearness(out), "sq_dist": out.sq_dist}
  flat = {
    name: values[..., batch["chosen"]].reshape(values.shape[0], -1, len(batch["chosen"]))
    for name, values in maps.items()
  }
  cell = jnp.argmax(flat["nearness"], axis=1)
  at_cell = {
    name: jnp.take_along_axis(values, cell[:, None], axis=1)[:, 0] for name, values in flat.items()
  }
  return {**at_cell, "cell": jnp.stack([cell // width, cell % width], -1)}
