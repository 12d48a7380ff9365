"""FunnyBirds' scores: do explanations agree with what removing parts from the image does?

  scores(birds, threshold).completeness

Hesse et al., "FunnyBirds" (ICCV 2023), and its released framework; docs/metrics/interventions.md.
These are the scores alone: they take what a network says of images that were drawn again without
parts, and what explanations say of each part. L parts, B objects of the background, C classes.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jprotop import statistics
from jprotop.errors import InputError
from jprotop.metrics import checks
from jprotop.metrics.estimate import Estimate
from jprotop.metrics.part_sets import contrast_pair, minimal_sufficient_sets

# 80 of them, as published; they are shares of the attribution's sum.
THRESHOLDS = tuple(np.linspace(0.01, 0.5, 80).tolist())
# Removing what is irrelevant lowers the target's logit by less than this share of it.
IRRELEVANT = 0.05


class Birds(NamedTuple):
  """What is known of N images: a row an image.

  Attributes:
    labels: int [N].
    variants: int [C, L], which variant of each part the birds of a class have.
    logits: float [N, 2^L, C], of the image without part l for each bit l that is set; the first is
      the complete image.
    logits_background: float [N, B, C], of the image without object b of the background.
    importance: float [N, C, L], of each part for each class, signed.
    importance_background: float [N, B], of each object, for the label.
    attribution: float [N, C], the sum of the attribution over the image.
  """

  labels: Int[np.ndarray, " N"]
  variants: Int[np.ndarray, "C L"]
  logits: Float[np.ndarray, "N S C"]
  logits_background: Float[np.ndarray, "N B C"]
  importance: Float[np.ndarray, "N C L"]
  importance_background: Float[np.ndarray, "N B"]
  attribution: Float[np.ndarray, "N C"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
  """What FunnyBirds reports, at one threshold of importance.

  Attributes:
    threshold: share of the attribution's sum above which a part is important.
    csdc, pc, dc: controlled synthetic data check, preservation check and deletion check.
    distractibility: D, 1 - the share of irrelevant things that are called important.
    completeness: ((csdc + pc + dc) / 3 + distractibility) / 2; None where one of them is.
    correctness: (1 + Spearman's correlation of importance and the drop of the logit) / 2.
    contrastivity: whether importance follows the class that is asked about.
    background_independence: the share of objects of the background that do not matter.
    accuracy: of the complete images.
  """

  threshold: float
  csdc: Estimate
  pc: Estimate
  dc: Estimate
  distractibility: Estimate
  completeness: float | None
  correctness: Estimate
  contrastivity: Estimate
  background_independence: Estimate
  accuracy: Estimate


def check(birds: Birds) -> None:
  """InputError unless all arrays fit together and are finite."""
  count, classes, parts = np.shape(birds.importance)
  backgrounds = np.shape(birds.logits_background)[1]
  wanted = {
    "labels": (count,),
    "variants": (classes, parts),
    "logits": (count, 2**parts, classes),
    "logits_background": (count, backgrounds, classes),
    "importance_background": (count, backgrounds),
    "attribution": (count, classes),
  }
  for name, shape in wanted.items():
    if np.shape(getattr(birds, name)) != shape:
      raise InputError(
        f"{name} has the shape {np.shape(getattr(birds, name))}; it must be {shape}, as importance "
        f"is of {count} images, {classes} classes and {parts} parts"
      )
  for name, values in birds._asdict().items():
    if not np.isfinite(values).all():
      raise InputError(f"{name} holds numbers that are not finite; leave those images out")
  checks.indices(birds.labels, classes, "label")


def scores(birds: Birds, threshold: float, *, definition: str = "paper") -> Scores:
  """All scores at one threshold, which should come from other images: see `best_threshold`.

  Args:
    threshold: share of the attribution's sum.
    definition: "released": see `minimal_sufficient_sets`, `important` and `contrastivity`.

  Raises:
    InputError: an array does not fit or is not finite.
  """
  check(birds)
  checks.definition(definition)
  rows = threshold_rows(birds, (threshold,), definition=definition)
  found = {name: Estimate.of_mean(values[0], "image") for name, values in rows.items()}
  values = [found[name].value for name in ("csdc", "pc", "dc", "distractibility")]
  known = [value for value in values if value is not None]
  complete = (sum(known[:3]) / 3 + known[3]) / 2 if len(known) == 4 else None
  predicted = birds.logits[:, 0].argmax(axis=1)
  return Scores(
    threshold=float(threshold),
    **found,
    completeness=complete,
    correctness=Estimate.of_mean(correctness(birds), "image"),
    contrastivity=Estimate.of_mean(contrastivity(birds, definition=definition), "image"),
    background_independence=Estimate.of_mean(background_independence(birds), "image"),
    accuracy=Estimate.of_share(predicted == birds.labels, "image"),
  )


def best_threshold(
  birds: Birds, thresholds: Sequence[float] = THRESHOLDS, *, definition: str = "paper"
) -> float:
  """The first threshold of the highest (CSDC + PC + DC + D) / 3, the release's criterion.

  The release chooses it on the test images that it then reports: give it others.
  """
  check(birds)
  rows = threshold_rows(birds, thresholds, definition=definition)
  total = np.sum([_means(values) for values in rows.values()], axis=0)
  return float(thresholds[int(total.argmax())])


def threshold_rows(
  birds: Birds, thresholds: Sequence[float], *, definition: str = "paper"
) -> dict[str, Float[np.ndarray, "T N"]]:
  """csdc, pc, dc and distractibility of each threshold and image; NaN where an image has none."""
  predicted = birds.logits[:, 0].argmax(axis=1)
  for_label = important(birds, birds.labels, thresholds, definition=definition)
  for_predicted = important(birds, predicted, thresholds, definition=definition)
  background = important_background(birds, thresholds, definition=definition)
  return {
    "csdc": _csdc(birds, for_label, predicted, definition),
    "pc": _kept(birds, ~for_predicted, predicted),
    "dc": 1 - _kept(birds, for_predicted, predicted),
    "distractibility": _distractibility(birds, for_label, background),
  }


def important(
  birds: Birds,
  target: Int[np.ndarray, " N"],
  thresholds: Sequence[float],
  *,
  definition: str = "paper",
) -> Bool[np.ndarray, "T N L"]:
  """P: which parts the explanation of a class calls important at each threshold.

  Args:
    target: the class of each image.
    definition: above the threshold's share of the attribution's sum. "released": also where that
      is negative, so that a part of negative importance may be important.
  """
  rows = np.arange(len(target))
  level = _levels(birds.attribution[rows, target], thresholds, definition)
  return birds.importance[rows, target] > level[..., None]


def important_background(
  birds: Birds, thresholds: Sequence[float], *, definition: str = "paper"
) -> Bool[np.ndarray, "T N B"]:
  """Which objects of the background the explanation of the label calls important."""
  rows = np.arange(len(birds.labels))
  level = _levels(birds.attribution[rows, birds.labels], thresholds, definition)
  return birds.importance_background > level[..., None]


def correctness(birds: Birds) -> Float[np.ndarray, " N"]:
  """(1 + Spearman's correlation of the parts' importance and of what their removal costs) / 2.

  NaN where all parts are as important, or their removal costs the same.
  """
  rows = np.arange(len(birds.labels))
  drop = _drops(birds, birds.labels)
  return (1 + statistics.rank_correlation(birds.importance[rows, birds.labels], drop)) / 2


def contrastivity(birds: Birds, *, definition: str = "paper") -> Float[np.ndarray, " N"]:
  """Target sensitivity: whether importance follows the class between two others.

  For the first pair of classes a and b that each share exactly two parts with the bird, and not the
  same: a's parts should matter more to a than to b, and b's more to b. The mean of both; NaN of an
  image on which the network does not do so itself, as the drops of its logits say.

  Args:
    definition: "paper": the network must lose more of a's logit without a's parts than without b's,
      and of b's the other way around, and there must be such a pair. "released": an image is left
      out only where it does neither, by the size of the change, whether up or down; and where there
      is no such pair, the last one that was looked at is taken.
  """
  checks.definition(definition)
  released = definition == "released"
  found = np.full(len(birds.labels), np.nan)
  pairs = {
    int(label): contrast_pair(birds.variants, int(label), definition=definition)
    for label in np.unique(birds.labels)
  }
  for i, label in enumerate(birds.labels):
    pair = pairs[int(label)]
    if pair is None:
      continue
    (a, parts_a), (b, parts_b) = pair
    drop = birds.logits[i, 0] - birds.logits[i, _bits(np.stack([parts_a, parts_b]))]
    drop = np.abs(drop) if released else drop
    follows = (drop[0, a] > drop[1, a], drop[1, b] > drop[0, b])
    if any(follows) if released else all(follows):
      weight = birds.importance[i]
      found[i] = np.mean([
        weight[a, parts_a].sum() > weight[b, parts_a].sum(),
        weight[b, parts_b].sum() > weight[a, parts_b].sum(),
      ])  # fmt: skip
  return found


def background_independence(birds: Birds) -> Float[np.ndarray, " N"]:
  """1 - the share of objects whose removal lowers the label's logit by at least 5% of it."""
  if not birds.logits_background.shape[1]:
    return np.full(len(birds.labels), np.nan)
  return _irrelevant(birds, birds.logits_background).mean(axis=1)


def _levels(attribution: np.ndarray, thresholds: Sequence[float], definition: str) -> np.ndarray:
  level = np.asarray(thresholds)[:, None] * attribution[None, :]
  return level if definition == "released" else np.maximum(level, 0)


def _bits(removed: np.ndarray) -> np.ndarray:
  """The row of `logits` without the parts of booleans [..., L]."""
  return removed @ (1 << np.arange(removed.shape[-1]))


def _drops(birds: Birds, target: np.ndarray) -> np.ndarray:
  """What the removal of each part alone costs the logit of a class, [N, L]."""
  rows, singles = np.arange(len(target)), 1 << np.arange(birds.variants.shape[1])
  return (
    (birds.logits[rows, 0, target])[:, None] - birds.logits[rows[:, None], singles, target[:, None]]
  )


def _kept(birds: Birds, removed: np.ndarray, predicted: np.ndarray) -> np.ndarray:
  """1 where the prediction is the same without parts [T, N, L], else 0."""
  left = birds.logits[np.arange(len(predicted)), _bits(removed)]
  return (left.argmax(axis=-1) == predicted).astype(np.float64)


def _csdc(birds: Birds, parts: np.ndarray, predicted: np.ndarray, definition: str) -> np.ndarray:
  """The best |P and S| / |S| over the minimal sufficient sets S of each correct image's class."""
  found = np.full(parts.shape[:2], np.nan)
  for label, sets in enumerate(minimal_sufficient_sets(birds.variants, definition=definition)):
    rows = (birds.labels == label) & (predicted == label)
    if len(sets):
      share = (parts[:, rows, None, :] & sets).sum(axis=-1) / sets.sum(axis=-1)
      found[:, rows] = share.max(axis=-1)
    elif definition == "released":
      found[:, rows] = 0.0
  return found


def _irrelevant(birds: Birds, without: np.ndarray) -> np.ndarray:
  """Bool [N, M]: what costs the label less than 5% of its logit, in images without it [N, M, C]."""
  rows = np.arange(len(birds.labels))
  whole = birds.logits[rows, 0, birds.labels][:, None]
  return whole - without[rows, :, birds.labels] < IRRELEVANT * whole


def _distractibility(birds: Birds, parts: np.ndarray, background: np.ndarray) -> np.ndarray:
  """1 - |important and irrelevant| / |irrelevant|; NaN where all that there is matters."""
  singles = birds.logits[:, 1 << np.arange(birds.variants.shape[1])]
  irrelevant = _irrelevant(birds, np.concatenate([singles, birds.logits_background], axis=1))
  called = np.concatenate([parts, background], axis=-1)
  count = irrelevant.sum(axis=1)
  wrong = (called & irrelevant).sum(axis=-1)
  return 1 - np.divide(wrong, count, out=np.full(wrong.shape, np.nan), where=count > 0)


def _means(values: np.ndarray) -> np.ndarray:
  """Mean of each row of [T, N] over what is not NaN; 0 where there is nothing."""
  there = ~np.isnan(values)
  return np.where(there, values, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
