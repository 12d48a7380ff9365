"""The same prototypes without the artefacts? Two looks at every image, and how far they differ.

The clean and the altered version of every test image are looked at once each. Then the prototype
that is most activated on one version is followed to the other, and the two rankings of all P
prototypes are compared.

The most activated prototype of one version is picked for its height there, so that even a change
without any meaning tends to make both drops positive. What the artefacts add is seen beside the
reverse drop, the other classes, and a network that never saw artefacts.
"""

import dataclasses
from collections.abc import Sequence

import msgspec
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jprotop import statistics
from jprotop.runs.records import Mean, Record, Share


class Selection(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
  """The numbers of one group of images; see `per_image`."""

  num_images: int
  similarity_altered: Mean
  similarity_clean: Mean
  similarity_drop: Mean
  similarity_drop_reverse: Mean
  top_k_overlap: Mean
  top_k_order_kept: Share
  top_prototype_kept: Share
  rank_correlation: Mean
  cell_moved: Share
  cell_shift: Mean


class Alteration(Record):
  """What was altered, and the numbers of each group of `selections`.

  shown are the images in the figures, num_figures_asked how many were to be drawn for them; None
  where it was said which.
  """

  alteration: str
  parameter: float
  classes: list[str]
  trained_on: str
  trained_as_measured: bool
  top_k: int
  num_prototypes: int
  shown: list[int]
  num_figures_asked: int | None
  selections: dict[str, Selection]


@dataclasses.dataclass(frozen=True)
class Sightings:
  """What a network sees in N images: `selectors.cells`.

  Attributes:
    activations: each prototype's maximum over the image.
    cell: (row, column) of that maximum, the first in row-major order.
  """

  logits: Float[np.ndarray, "N C"]
  activations: Float[np.ndarray, "N P"]
  cell: Int[np.ndarray, "N P 2"]

  @property
  def prediction(self) -> Int[np.ndarray, " N"]:
    """The predicted classes."""
    return self.logits.argmax(axis=1)


def selections(
  label: Int[np.ndarray, " N"], prediction: Int[np.ndarray, " N"], classes: Sequence[int]
) -> dict[str, Bool[np.ndarray, " N"]]:
  """Which images each group of numbers is about.

  paper: images of altered classes whose altered version is classified correctly (Section 4).
  other_classes is the control: no training image of theirs had artefacts.

  Args:
    prediction: the class predicted for the altered versions.
    classes: the classes that are altered in training.
  """
  covered = np.isin(label, classes)
  return {
    "paper": covered & (prediction == label),
    "altered_classes": covered,
    "other_classes": ~covered,
    "all": np.ones(len(label), bool),
  }


def per_image(altered: Sightings, clean: Sightings, *, top_k: int = 5) -> dict[str, np.ndarray]:
  """How far the explanations of the two versions of each image differ, [N] each.

  Returns:
    prototype: the most activated one of the altered version, and similarity_altered,
      similarity_clean, its activations on both.
    similarity_drop: their difference. similarity_drop_reverse: the other way round, clean minus
      altered, for the most activated prototype of the clean version.
    top_k_overlap: share of the altered version's top_k prototypes (all, if there are fewer)
      among the clean version's; top_k_order_kept: both lists are the same, in the same order;
      top_prototype_kept: the first of them is.
    rank_correlation: Spearman's, over all prototypes; NaN where it is not defined.
    cell_moved: `prototype` is found in another cell; cell_shift: how far away, in cells.
  """
  ours = statistics.top_columns(altered.activations, top_k)
  theirs = statistics.top_columns(clean.activations, top_k)
  images, top, other = np.arange(len(ours)), ours[:, 0], theirs[:, 0]
  move = altered.cell[images, top].astype(float) - clean.cell[images, top]
  shift = np.hypot(move[:, 0], move[:, 1])
  before, after = altered.activations[images, top], clean.activations[images, top]
  back = altered.activations[images, other]
  return {
    "prototype": top,
    "similarity_altered": before,
    "similarity_clean": after,
    "similarity_drop": before - after,
    "similarity_drop_reverse": clean.activations[images, other] - back,
    "top_k_overlap": statistics.top_k_overlap(altered.activations, clean.activations, k=top_k),
    "top_k_order_kept": (ours == theirs).all(axis=1),
    "top_prototype_kept": top == other,
    "rank_correlation": statistics.rank_correlation(altered.activations, clean.activations),
    "cell_moved": shift > 0,
    "cell_shift": shift,
  }


def summarise(rows: dict[str, Shaped[np.ndarray, " N"]], chosen: Bool[np.ndarray, " N"]) -> dict:
  """Shares and means of `per_image` over the images that are chosen.

  Where a rank correlation is not defined, its `total` leaves the image out.
  """
  numbers: dict = {"num_images": int(chosen.sum())}
  for name, values in rows.items():
    values = values[chosen]
    if name == "prototype":
      continue
    is_share = values.dtype == bool
    numbers[name] = (
      statistics.share(values) if is_share else statistics.mean(values[~np.isnan(values)])
    )
  return numbers


def drift(
  altered: Sightings,
  clean: Sightings,
  label: Int[np.ndarray, " N"],
  classes: Sequence[int],
  *,
  top_k: int = 5,
) -> dict[str, dict]:
  """The numbers of the JPEG experiment for each of `selections`, with counts and intervals."""
  rows = per_image(altered, clean, top_k=top_k)
  groups = selections(label, altered.prediction, classes)
  return {name: summarise(rows, chosen) for name, chosen in groups.items()}
