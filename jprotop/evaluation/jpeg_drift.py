"""The JPEG experiment (Section 4, App. D): does a network find the same prototypes without the
artefacts?

The clean and the compressed version of every test image are looked at once each. Then the prototype
that is most activated on one version is followed to the other, and the two rankings of all P
prototypes are compared.

The most activated prototype of one version is picked for its height there, so that even a change
without any meaning tends to make both drops positive. What the artefacts add is seen beside the
reverse drop, the uncompressed classes, and a network that never saw artefacts.
"""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jprotop import metrics, parallel
from jprotop.data import batches
from jprotop.data.dataset import Split
from jprotop.models.protopnet import ProtoPNet


@dataclasses.dataclass(frozen=True)
class Seen:
  """What a network sees in N images.

  Attributes:
    logits: [N, C].
    activations: [N, P], each prototype's maximum over the image.
    cell: int [N, P, 2], (row, column) of that maximum, the first in row-major order.
  """

  logits: np.ndarray
  activations: np.ndarray
  cell: np.ndarray

  @property
  def prediction(self) -> np.ndarray:
    """The predicted classes, int [N]."""
    return self.logits.argmax(axis=1)


def _look_batch(model: ProtoPNet, variables: dict, batch: dict) -> dict:
  out = model.apply(variables, batch["image"])
  count, _, width, prototypes = out.similarity_map.shape
  place = out.similarity_map.reshape(count, -1, prototypes).argmax(axis=1)
  # A grid has far fewer than 2 ** 15 rows.
  cell = jnp.stack([place // width, place % width], axis=-1).astype(jnp.int16)
  return {"logits": out.logits, "activations": out.activations, "cell": cell}


def look(model: ProtoPNet, variables: dict, split: Split, *, batch_size: int, title: str) -> Seen:
  """What a network sees in every un-augmented crop of a split; `title` names the progress bar."""
  size = parallel.round_up(min(batch_size, len(split)))
  images = ({"image": batch["image"]} for batch in batches.in_order(split, size))
  look_batch = parallel.per_example(_look_batch, model)
  found = parallel.gather_examples(
    look_batch, variables, images, size, total=len(split), title=title
  )
  return Seen(**found)


def selections(
  label: np.ndarray, prediction: np.ndarray, classes: Sequence[int]
) -> dict[str, np.ndarray]:
  """Which images each group of numbers is about, boolean [N] each.

  paper: images of compressed classes whose compressed version is classified correctly (Section 4).
  uncompressed_classes is the control: no training image of theirs had artefacts.

  Args:
    label: int [N].
    prediction: int [N], the class predicted for the compressed versions.
    classes: the classes that are compressed in training.
  """
  covered = np.isin(label, classes)
  return {
    "paper": covered & (prediction == label),
    "compressed_classes": covered,
    "uncompressed_classes": ~covered,
    "all": np.ones(len(label), bool),
  }


def per_image(compressed: Seen, clean: Seen, *, top_k: int = 5) -> dict[str, np.ndarray]:
  """How far the explanations of the two versions of each image differ, [N] each.

  Returns:
    prototype: the most activated one of the compressed version, and similarity_compressed,
      similarity_clean, its activations on both.
    similarity_drop: their difference. similarity_drop_reverse: the other way round, clean minus
      compressed, for the most activated prototype of the clean version.
    top_k_overlap: share of the compressed version's top_k prototypes (all, if there are fewer)
      among the clean version's; top_k_order_kept: both lists are the same, in the same order;
      top_prototype_kept: the first of them is.
    rank_correlation: Spearman's, over all prototypes; NaN where it is not defined.
    cell_moved: `prototype` is found in another cell; cell_shift: how far away, in cells.
  """
  ours = metrics.highest(compressed.activations, top_k)
  theirs = metrics.highest(clean.activations, top_k)
  images, top, other = np.arange(len(ours)), ours[:, 0], theirs[:, 0]
  move = compressed.cell[images, top].astype(float) - clean.cell[images, top]
  shift = np.hypot(move[:, 0], move[:, 1])
  before, after = compressed.activations[images, top], clean.activations[images, top]
  back = compressed.activations[images, other]
  return {
    "prototype": top,
    "similarity_compressed": before,
    "similarity_clean": after,
    "similarity_drop": before - after,
    "similarity_drop_reverse": clean.activations[images, other] - back,
    "top_k_overlap": metrics.top_k_overlap(compressed.activations, clean.activations, k=top_k),
    "top_k_order_kept": (ours == theirs).all(axis=1),
    "top_prototype_kept": top == other,
    "rank_correlation": metrics.rank_correlation(compressed.activations, clean.activations),
    "cell_moved": shift > 0,
    "cell_shift": shift,
  }


def summarise(rows: dict[str, np.ndarray], chosen: np.ndarray) -> dict:
  """Shares and means of `per_image` over the images that are chosen, boolean [N].

  Where a rank correlation is not defined, its `total` leaves the image out.
  """
  numbers: dict = {"num_images": int(chosen.sum())}
  for name, values in rows.items():
    values = values[chosen]
    if name == "prototype":
      continue
    is_share = values.dtype == bool
    numbers[name] = metrics.share(values) if is_share else metrics.mean(values[~np.isnan(values)])
  return numbers


def drift(
  compressed: Seen, clean: Seen, label: np.ndarray, classes: Sequence[int], *, top_k: int = 5
) -> dict[str, dict]:
  """The numbers of the JPEG experiment for each of `selections`, with counts and intervals."""
  rows = per_image(compressed, clean, top_k=top_k)
  groups = selections(label, compressed.prediction, classes)
  return {name: summarise(rows, chosen) for name, chosen in groups.items()}
