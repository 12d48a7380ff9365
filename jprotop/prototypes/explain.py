"""Why the network decides as it does, in its own terms: ProtoPNet's two analyses.

Local: what all prototypes say about an image. Global: which patches of a data set a prototype finds
nearest (Chen et al. 2019).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Int, Int32
from tqdm import tqdm

from jprotop import regions, statistics
from jprotop.data.dataset import Split
from jprotop.errors import InputError
from jprotop.prototypes import selectors
from jprotop.prototypes.see import Network, see, see_in_batches


def local_analysis(
  network: Network, images: Float32[np.ndarray, "N S S 3"], *, num_prototypes: int, batch_size: int
) -> dict[str, np.ndarray]:
  """Everything that the network says about images in [0, 1].

  Returns:
    logits [N, C]; activations [N, P]; sq_dist and similarity_map [N, h, w, P]; top_prototypes
    int [N, K], the K = num_prototypes most activated, highest first (of equals the first); and
    boxes int [N, K, 4], their regions of high activation (y0, y1, x0, x1) in pixels.

  Raises:
    InputError: num_prototypes is not 1 to P.
  """
  check_num_prototypes(num_prototypes, len(network.model.prototype_class))
  record = see(network, images, selectors.everything, batch_size=min(batch_size, len(images)))
  record["top_prototypes"] = statistics.top_columns(record["activations"], num_prototypes)
  rows = [
    boxes_of(maps[..., top], images.shape[1])
    for maps, top in zip(record["similarity_map"], record["top_prototypes"])
  ]
  return {**record, "boxes": np.stack(rows)}


def boxes_of(maps: Float[np.ndarray, "h w K"], image_size: int) -> Int32[np.ndarray, "K 4"]:
  """Regions of high activation of maps in pixels, (y0, y1, x0, x1)."""
  boxes = [regions.high_activation_box(m, image_size, image_size) for m in np.moveaxis(maps, -1, 0)]
  return np.array(boxes, np.int32).reshape(-1, 4)


def contributions(
  activations: Float[np.ndarray, "N P"],
  last_layer: Float[np.ndarray, "P C"],
  label: Int[np.ndarray, " N"],
) -> Float[np.ndarray, "N P"]:
  """What each prototype adds to the score of one class an image: activation x weight.

  Args:
    label: the class of each image whose score is taken apart; a row sums to that score.
  """
  return activations * last_layer[:, label].T


def check_num_prototypes(num_prototypes: int, available: int) -> None:
  """InputError unless that many of the network's prototypes can be shown."""
  if not 1 <= num_prototypes <= available:
    raise InputError(
      f"num_prototypes={num_prototypes} must be 1 to {available}, the prototypes of this network"
    )


# --- global analysis


def nearest_cells(
  network: Network,
  split: Split,
  prototypes: Int[np.ndarray, " Q"],
  *,
  batch_size: int,
  indices: Int[np.ndarray, " N"] | None = None,
) -> dict[str, np.ndarray]:
  """Each image's nearest patch to each of Q prototypes: nearness and sq_dist [N, Q], and cell int
  [N, Q, 2].

  One pass over the un-augmented split, or over the images of `indices` alone; memory grows with
  N x Q, not with the cells.
  """
  return see(
    network,
    split,
    selectors.nearest,
    batch_size=batch_size,
    indices=indices,
    shared={"chosen": prototypes},
    title=f"distances, {split.name}",
  )


def nearest_images(nearness: Float[np.ndarray, "N Q"], k: int) -> Int[np.ndarray, "Q {k}"]:
  """The k images of greatest nearness for each prototype, nearest first.

  Equally near: in the order of the data set.
  """
  return np.argsort(-nearness, axis=0, kind="stable")[:k].T


def nearest_in_split(
  network: Network,
  split: Split,
  prototypes: Sequence[int] | Int[np.ndarray, " Q"],
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
  check_prototypes(prototypes, len(network.model.prototype_class))
  prototypes = np.asarray(prototypes)
  found = nearest_cells(network, split, prototypes, batch_size=batch_size)
  image = nearest_images(found["nearness"], k)
  column = np.arange(len(prototypes))[:, None]
  return {
    "image": image,
    "label": split.label[image],
    "cell": found["cell"][image, column],
    "sq_dist": found["sq_dist"][image, column],
    "box": _boxes(network, split, prototypes, image, batch_size),
  }


def _boxes(
  network: Network,
  split: Split,
  prototypes: Int[np.ndarray, " Q"],
  image: Int[np.ndarray, "Q k"],
  batch_size: int,
) -> Int32[np.ndarray, "Q k 4"]:
  """Boxes of prototypes in images, from the maps of these images alone."""
  chosen = np.unique(image)
  boxes, left = np.zeros((*image.shape, 4), np.int32), iter(chosen)
  seen = see_in_batches(
    network, split, selectors.chosen_maps,
    batch_size=batch_size, indices=chosen, shared={"chosen": prototypes},
  )  # fmt: skip
  title = f"boxes, {split.name}"
  with tqdm(total=len(chosen), desc=title, unit="image", dynamic_ncols=True) as bar:
    for maps in seen:
      for found, index in zip(maps, left):
        prototype, place = np.nonzero(image == index)
        boxes[prototype, place] = boxes_of(found[..., prototype], split.image_size)
      bar.update(len(maps))
  return boxes


def purity(
  label: Int[np.ndarray, "Q k"], prototype_class: Sequence[int] | Int[np.ndarray, " Q"]
) -> dict:
  """Share of a prototype's nearest patches that are of its class: the mean over prototypes.

  Its interval is of prototypes: the patches of one are alike.

  Args:
    label: classes of the nearest images.
  """
  return statistics.mean((label == np.asarray(prototype_class)[:, None]).mean(axis=1))


def check_prototypes(prototypes: Sequence[int] | Int[np.ndarray, " Q"], available: int) -> None:
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
