"""The same prototypes without the artefacts? Two looks at every image, and how far they differ.

The clean and the altered version of every test image are looked at once each. Then the prototype
that is most activated on one version is followed to the other, and the two rankings of all P
prototypes are compared.

The most activated prototype of one version is picked for its height there, so that even a change
without any meaning tends to make both drops positive. What the artefacts add is seen beside the
reverse drop, the other classes, and a network that never saw artefacts; and in `shift`, which picks
no prototype.
"""

import dataclasses
from collections.abc import Sequence

import msgspec
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jprotop import statistics
from jprotop.prototypes.accuracy import packed, packed_numbers
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
  shift: Mean
  right_group_clean: Share
  right_group_altered: Share


class ImageRows(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
  """Values of all test images, in their order, as `prototypes.accuracy.packed` and
  `packed_numbers` write them: so that networks can be compared image by image.

  altered_class says which are of an altered class; the others are those of `per_image`.
  """

  altered_class: str
  similarity_drop: str
  shift: str
  top_k_overlap: str
  top_k_order_kept: str
  top_prototype_kept: str


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
  per_image: ImageRows


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


def scaled_top_k(num_prototypes: int) -> int:
  """How many prototypes are an image's top ones: 5 of the paper's 2000, and as large a share of
  others; at least two, which have an order."""
  return min(num_prototypes, max(2, round(_TOP_SHARE * num_prototypes)))


_TOP_SHARE = 5 / 2000


def per_image(altered: Sightings, clean: Sightings, *, top_k: int) -> dict[str, np.ndarray]:
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


def by_kind(
  altered: Sightings,
  clean: Sightings,
  label: Int[np.ndarray, " N"],
  classes: Sequence[int],
  prototype_class: Sequence[int] | Int[np.ndarray, " P"],
) -> dict[str, np.ndarray]:
  """What the two versions of each image say of altered classes and of the others, [N] each.

  Args:
    classes: those that are altered in training.

  Returns:
    shift: see `shift_of`.
    right_group_clean, right_group_altered: the class predicted for that version is an altered one
      exactly where the image's class is.
  """
  covered = np.isin(label, classes)
  return {
    "shift": shift_of(altered, clean, np.isin(prototype_class, classes)),
    "right_group_clean": np.isin(clean.prediction, classes) == covered,
    "right_group_altered": np.isin(altered.prediction, classes) == covered,
  }


def shift_of(
  altered: Sightings, clean: Sightings, of_altered: Bool[np.ndarray, " P"]
) -> Float[np.ndarray, " N"]:
  """By how much the artefacts raise an image's activations, altered minus clean: the mean over the
  prototypes of altered classes, minus the mean over the others. NaN where one kind has none.

  No prototype is picked for its height, so that a change without meaning leaves it at 0.
  """
  raised = altered.activations.astype(np.float64) - clean.activations
  if of_altered.all() or not of_altered.any():
    return np.full(len(raised), np.nan)
  return raised[:, of_altered].mean(axis=1) - raised[:, ~of_altered].mean(axis=1)


def packed_rows(
  rows: dict[str, Shaped[np.ndarray, " N"]],
  label: Int[np.ndarray, " N"],
  classes: Sequence[int],
) -> dict[str, str]:
  """The `ImageRows` of the rows."""
  kept = {"altered_class": np.isin(label, classes), **rows}
  fields = {name: kept[name] for name in ImageRows.__struct_fields__}
  return {
    name: packed(values) if values.dtype == bool else packed_numbers(values)
    for name, values in fields.items()
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
  rows: dict[str, Shaped[np.ndarray, " N"]],
  label: Int[np.ndarray, " N"],
  prediction: Int[np.ndarray, " N"],
  classes: Sequence[int],
) -> dict[str, dict]:
  """The numbers of the JPEG experiment for each of `selections`, with counts and intervals.

  Args:
    rows: of `per_image` and `by_kind`.
  """
  groups = selections(label, prediction, classes)
  return {name: summarise(rows, chosen) for name, chosen in groups.items()}
