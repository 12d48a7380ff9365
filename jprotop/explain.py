"""Why the network decides as it does, in its own terms: ProtoPNet's two analyses.

Local: what all prototypes say about an image. Global: which patches of a data set a prototype finds
nearest (Chen et al. 2019).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jprotop import metrics, parallel, regions
from jprotop.data import batches
from jprotop.data.dataset import Split
from jprotop.errors import InputError
from jprotop.models.protopnet import ProtoPNet

_SAID = ("logits", "activations", "sq_dist", "similarity_map")


def _say_batch(model: ProtoPNet, variables: dict, batch: dict) -> dict:
  out = model.apply(variables, batch["image"])
  return {name: getattr(out, name) for name in _SAID}


def local_analysis(
  model: ProtoPNet, variables: dict, images: np.ndarray, *, num_prototypes: int, batch_size: int
) -> dict[str, np.ndarray]:
  """Everything that the network says about images, float32 [N, S, S, 3] in [0, 1].

  Returns:
    logits [N, C]; activations [N, P]; sq_dist and similarity_map [N, h, w, P]; top_prototypes
    int [N, K], the K = num_prototypes most activated, highest first (of equals the first); and
    boxes int [N, K, 4], their regions of high activation (y0, y1, x0, x1) in pixels.

  Raises:
    InputError: num_prototypes is not 1 to P.
  """
  check_num_prototypes(num_prototypes, len(model.prototype_class))
  size = parallel.round_up(min(batch_size, len(images)))
  chunks = parallel.chunks({"image": images}, size)
  say_batch = parallel.per_example(_say_batch, model)
  record = parallel.gather_examples(say_batch, variables, chunks, size)
  record["top_prototypes"] = metrics.highest(record["activations"], num_prototypes)
  rows = [
    boxes_of(maps[..., top], images.shape[1])
    for maps, top in zip(record["similarity_map"], record["top_prototypes"])
  ]
  return {**record, "boxes": np.stack(rows)}


def boxes_of(maps: np.ndarray, image_size: int) -> np.ndarray:
  """Regions of high activation of maps [h, w, K] in pixels, int [K, 4] (y0, y1, x0, x1)."""
  boxes = [regions.high_activation_box(m, image_size, image_size) for m in np.moveaxis(maps, -1, 0)]
  return np.array(boxes, np.int32).reshape(-1, 4)


def contributions(activations: np.ndarray, last_layer: np.ndarray, label: np.ndarray) -> np.ndarray:
  """What each prototype adds to the score of one class an image: activation x weight, [N, P].

  Args:
    activations: [N, P].
    last_layer: [P, C] weights.
    label: int [N], the class of each image whose score is taken apart; a row sums to that score.
  """
  return activations * last_layer[:, label].T


def check_num_prototypes(num_prototypes: int, available: int) -> None:
  """InputError unless that many of the network's prototypes can be shown."""
  if not 1 <= num_prototypes <= available:
    raise InputError(
      f"num_prototypes={num_prototypes} must be 1 to {available}, the prototypes of this network"
    )


# --- global analysis


def _nearest_batch(model: ProtoPNet, shared: tuple, batch: dict) -> dict:
  """The nearest cell of each image for each chosen prototype, in row-major order."""
  variables, prototypes = shared
  sq_dist = model.apply(variables, batch["image"]).sq_dist[..., prototypes]
  flat = sq_dist.reshape(sq_dist.shape[0], -1, sq_dist.shape[-1])
  cell = jnp.argmin(flat, axis=1)
  width = sq_dist.shape[2]
  return {"sq_dist": jnp.min(flat, axis=1), "cell": jnp.stack([cell // width, cell % width], -1)}


def _maps_batch(model: ProtoPNet, shared: tuple, batch: dict) -> jax.Array:
  variables, prototypes = shared
  return model.apply(variables, batch["image"]).similarity_map[..., prototypes]


def nearest_cells(
  model: ProtoPNet,
  variables: dict,
  split: Split,
  prototypes: np.ndarray,
  *,
  batch_size: int,
  indices: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
  """Each image's nearest patch to each of Q prototypes: sq_dist [N, Q] and cell int [N, Q, 2].

  One pass over the un-augmented split, or over the images of `indices` alone; memory grows with
  N x Q, not with the cells.
  """
  size, total = parallel.round_up(batch_size), len(split) if indices is None else len(indices)
  shared, images = (variables, np.asarray(prototypes)), batches.in_order(split, size, indices)
  nearest_batch, title = parallel.per_example(_nearest_batch, model), f"distances, {split.name}"
  return parallel.gather_examples(nearest_batch, shared, images, size, total=total, title=title)


def nearest_images(sq_dist: np.ndarray, k: int) -> np.ndarray:
  """Images of the k smallest distances of [N, Q] for each prototype, nearest first, int [Q, k].

  Equal distances: in the order of the data set.
  """
  return np.argsort(sq_dist, axis=0, kind="stable")[:k].T


def nearest_patches(
  model: ProtoPNet,
  variables: dict,
  split: Split,
  prototypes: Sequence[int],
  *,
  k: int,
  batch_size: int,
) -> dict[str, np.ndarray]:
  """The k nearest patches of each of Q prototypes in a split, of each image its nearest one.

  Returns:
    image int [Q, k], index into the split, nearest first (of equals the first); label int [Q, k]
    of that image; cell int [Q, k, 2] (row, column); sq_dist [Q, k]; and box int [Q, k, 4], the
    region of high activation (y0, y1, x0, x1) in that image, in pixels.

  Raises:
    InputError: k is not 1 to the number of images, or a prototype does not exist.
  """
  check_neighbours(k, split)
  check_prototypes(prototypes, len(model.prototype_class))
  prototypes = np.asarray(prototypes)
  found = nearest_cells(model, variables, split, prototypes, batch_size=batch_size)
  image = nearest_images(found["sq_dist"], k)
  column = np.arange(len(prototypes))[:, None]
  return {
    "image": image,
    "label": split.label[image],
    "cell": found["cell"][image, column],
    "sq_dist": found["sq_dist"][image, column],
    "box": _boxes(model, variables, split, prototypes, image, batch_size),
  }


def _boxes(model, variables, split: Split, prototypes, image: np.ndarray, batch_size: int):
  """Boxes int [Q, k, 4] of prototypes in images [Q, k], from the maps of these images alone."""
  chosen, size = np.unique(image), parallel.round_up(batch_size)
  boxes = np.zeros((*image.shape, 4), np.int32)
  shown = batches.in_order(split, size, chosen)
  maps_batch, left = parallel.per_example(_maps_batch, model), iter(chosen)
  title = f"boxes, {split.name}"
  with tqdm(total=len(chosen), desc=title, unit="image", dynamic_ncols=True) as bar:
    for maps in parallel.map_examples(maps_batch, (variables, prototypes), shown, size):
      for found, index in zip(maps, left):
        prototype, place = np.nonzero(image == index)
        boxes[prototype, place] = boxes_of(found[..., prototype], split.image_size)
      bar.update(len(maps))
  return boxes


def purity(label: np.ndarray, prototype_class: np.ndarray) -> dict:
  """Share of the nearest patches that are of their prototype's class.

  Args:
    label: int [Q, k], classes of the nearest images.
    prototype_class: int [Q].
  """
  return metrics.share((label == np.asarray(prototype_class)[:, None]).ravel())


def check_prototypes(prototypes: Sequence[int], available: int) -> None:
  """InputError, naming the first that does not exist, unless all prototypes do."""
  outside = [p for p in prototypes if not 0 <= p < available]
  if outside or not len(prototypes):
    which = f"prototype {outside[0]} does not exist" if outside else "no prototype is named"
    raise InputError(f"{which}; this network has 0 to {available - 1}")


def check_neighbours(k: int, split: Split) -> None:
  """InputError unless a split has k images, of which each gives one patch."""
  if not 1 <= k <= len(split):
    raise InputError(
      f"{k} nearest patches, one an image, cannot be found among the {len(split)} images of the "
      f"{split.name} split; ask for 1 to {len(split)}"
    )
