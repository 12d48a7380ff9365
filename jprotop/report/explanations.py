"""ProtoPNet's explanations as pages: why an image got its class; what a prototype finds nearest."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jprotop.prototypes.push import Source
from jprotop.regions import Box
from jprotop.report import canvas
from jprotop.report.drawing import (
  check_box,
  check_image,
  crop,
  draw_box,
  draw_peak,
  has_range,
  heat_overlay,
  show_image,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
  """One prototype in an image: similarity x weight is what it adds to the explained class.

  map_up is its similarity upsampled to the image, box the region of high activation there,
  peak the pixels of the strongest cell, whose similarity counts.
  source: the training patch it is; None where that is not known.
  """

  prototype_id: int
  prototype_class: str
  source: Source | None
  map_up: Float[np.ndarray, "H W"]
  box: Box
  peak: Box
  similarity: float
  weight: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explanation:
  """An image in [0, 1], its highest class scores, and the prototypes that made them.

  scores are (class, score) of the network, highest first: the first is the class that the evidence
  is for. ensemble are those of several networks together. true_class is None if not known.
  """

  image: Float[np.ndarray, "H W 3"]
  image_id: str
  true_class: str | None
  scores: Sequence[tuple[str, float]]
  evidence: Sequence[Evidence]
  ensemble: Sequence[tuple[str, float]] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearPatch:
  """An image that holds one of a prototype's nearest patches: peak are the pixels of its cell, box
  the region of high activation around it."""

  image: Float[np.ndarray, "H W 3"]
  box: Box
  peak: Box
  class_name: str
  own_class: bool
  sq_dist: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbourhood:
  """A prototype, its source (None: not known), and its nearest patches, nearest first."""

  prototype_id: int
  source: Source | None
  train: Sequence[NearPatch]
  test: Sequence[NearPatch]


class _Sheet:
  """A figure whose pictures and texts are placed in inches from its upper left corner."""

  def __init__(self, width: float, height: float):
    self.width, self.height = width, height
    self.figure = Figure(figsize=(width, height), facecolor="white")

  def axes(self, left: float, top: float, width: float, height: float) -> Axes:
    bottom = 1 - (top + height) / self.height
    return self.figure.add_axes(
      (left / self.width, bottom, width / self.width, height / self.height)
    )

  def text(self, left: float, top: float, text: str, *, size: float = 8, **style) -> None:
    look: dict[str, Any] = {"va": "top", "color": canvas.INK, "linespacing": 1.25, **style}
    self.figure.text(left / self.width, 1 - top / self.height, text, fontsize=size, **look)


# --- one image

_SIDE, _GAP, _MARGIN, _TOP, _FOOT = 1.2, 0.1, 0.15, 1.18, 0.5
_LEFT, _TEXT = 2.5, 2.5  # widths of the image at the left and of the sums at the right


def explanation(example: Explanation) -> Figure:
  """Local analysis of one image: its class scores, and a row for each of its top prototypes.

  All heat maps share one scale, printed below them.
  """
  check_image(example.image, "image")
  for item in example.evidence:
    check_box(item.box, example.image, f"the box of prototype {item.prototype_id}")
    check_box(item.peak, example.image, f"the peak of prototype {item.prototype_id}")
  sourced = all(item.source is not None for item in example.evidence)
  pictures = 4 if sourced else 2
  right = _MARGIN + _LEFT + 0.3
  bars = 0.45 + 0.3 * len(example.scores)
  bars += 0.35 + 0.3 * len(example.ensemble) if example.ensemble else 0
  height = max(len(example.evidence) * (_SIDE + _GAP), _LEFT + bars)
  width = right + pictures * (_SIDE + _GAP) + _TEXT
  sheet = _Sheet(width, _TOP + height + _FOOT)
  _title(sheet, example)
  _whole_image(sheet, example)
  maps = [item.map_up for item in example.evidence]
  scale = Normalize(min(m.min() for m in maps), max(m.max() for m in maps))
  heads = ["Training image", "Prototype"] if sourced else []
  heads += ["Where it is found", "Similarity"]
  for column, head in enumerate(heads):
    sheet.text(right + column * (_SIDE + _GAP), _TOP - 0.1, head, va="baseline")
  for row, item in enumerate(example.evidence):
    _evidence_row(sheet, right, _TOP + row * (_SIDE + _GAP), example.image, item, scale)
  left = right + pictures * (_SIDE + _GAP)
  name = canvas.class_label(example.scores[0][0], max_length=26)
  sheet.text(left, _TOP - 0.1, f"Similarity × weight for\n{name}", va="baseline")
  below = _TOP + len(example.evidence) * (_SIDE + _GAP)
  shown = sum(item.similarity * item.weight for item in example.evidence)
  text = f"sum of these {shown:.2f}\nof all prototypes {example.scores[0][1]:.2f}"
  sheet.text(left, below, text)
  _scale_bar(sheet, left - _SIDE - _GAP, below, scale)
  return sheet.figure


def _title(sheet: _Sheet, example: Explanation) -> None:
  """Which image it is, and what the marks mean."""
  true_class = example.true_class and canvas.class_label(example.true_class)
  title = f"True class: {true_class or 'not known'}"
  sheet.text(_MARGIN, 0.12, title, size=11, fontweight="bold")
  sheet.text(_MARGIN, 0.34, canvas.plain(example.image_id), color=canvas.GREY)
  note = "White cross: the strongest cell, whose similarity counts. Yellow: high similarity."
  sheet.text(_MARGIN, 0.54, note, color=canvas.GREY)


def _whole_image(sheet: _Sheet, example: Explanation) -> None:
  """The image, and below it the class scores of the network and of an ensemble."""
  show_image(sheet.axes(_MARGIN, _TOP, _LEFT, _LEFT), example.image)
  top = _TOP + _LEFT + 0.15
  _score_bars(sheet, top, "Class scores", example.scores)
  if example.ensemble:
    top += 0.35 + 0.3 * len(example.scores)
    _score_bars(sheet, top, "Class scores of the ensemble", example.ensemble)


def _score_bars(sheet: _Sheet, top: float, title: str, scores: Sequence[tuple[str, float]]) -> None:
  sheet.text(_MARGIN, top, title, fontweight="bold")
  axes = sheet.axes(_MARGIN, top + 0.18, _LEFT, 0.3 * len(scores))
  values = np.array([score for _, score in scores])
  places = np.arange(len(scores))
  axes.barh(places + 0.22, values, height=0.3, color=[canvas.BLUE] + [canvas.GREY] * len(values))
  for place, (name, score) in enumerate(scores):
    text = f"{canvas.class_label(name, max_length=28)}  {score:.2f}"
    # At the panel's edge, wherever the bars start: scores may be negative.
    axes.text(0, place, text, transform=axes.get_yaxis_transform(), fontsize=7.5, va="bottom")
  axes.set(ylim=(len(scores) - 0.5, -0.5), xticks=[], yticks=[])
  low, high = min(0, values.min()), max(0, values.max())
  axes.set_xlim(low, high if high > low else 1)
  axes.spines[:].set_visible(False)


def _evidence_row(
  sheet: _Sheet, left: float, top: float, image: np.ndarray, item: Evidence, scale: Normalize
) -> None:
  heat = heat_overlay(image, item.map_up, low=scale.vmin, high=scale.vmax)
  pictures = [(image, item.box, item.peak), (heat, item.box, item.peak)]
  if item.source is not None:
    patch = crop(item.source.image, item.source.box)
    pictures = [(item.source.image, item.source.box, None), (patch, None, None), *pictures]
  for picture, box, peak in pictures:
    axes = sheet.axes(left, top, _SIDE, _SIDE)
    show_image(axes, picture)
    if box is not None:
      draw_box(axes, box, width=1.4)
    if peak is not None:
      draw_peak(axes, peak, size=6)
    left += _SIDE + _GAP
  sheet.text(left, top + 0.1, f"prototype {item.prototype_id} of", color=canvas.GREY)
  sheet.text(left, top + 0.26, canvas.class_label(item.prototype_class, max_length=28), size=8.5)
  sheet.text(left, top + 0.56, f"{item.similarity:.2f} × {item.weight:.2f} =", size=9)
  total = f"{item.similarity * item.weight:.2f}"
  sheet.text(left, top + 0.76, total, size=11, fontweight="bold")


def _scale_bar(sheet: _Sheet, left: float, top: float, scale: Normalize) -> None:
  if not has_range(scale):
    return
  axes = sheet.axes(left, top + 0.02, _SIDE, 0.1)
  bar = sheet.figure.colorbar(
    ScalarMappable(scale, colormaps["jet"]), cax=axes, orientation="horizontal"
  )
  bar.outline.set_visible(False)
  axes.tick_params(labelsize=7, colors=canvas.INK, length=2)
  axes.locator_params("x", nbins=4)
  sheet.text(left, top + 0.34, "one scale for all maps", size=7, color=canvas.GREY)


# --- the prototypes of a class


def nearest_patches(class_name: str, prototypes: Sequence[Neighbourhood]) -> Figure:
  """Global analysis: a row a prototype of one class, with its nearest training and test patches.

  Images of another class are framed.
  """
  side, gap, foot, between = 1.15, 0.1, 0.36, 0.28
  sourced = prototypes[0].source is not None
  starts, left = [], _MARGIN
  for count in (int(sourced), len(prototypes[0].train), len(prototypes[0].test)):
    starts.append(left)
    left += count * (side + gap) + (between if count else 0)
  head, band = 0.9, side + foot + 0.2
  sheet = _Sheet(max(left - between + _MARGIN, 6.4), head + len(prototypes) * band + 0.1)
  title = f"{canvas.class_label(class_name)}: what its prototypes find nearest"
  sheet.text(_MARGIN, 0.12, title, size=11, fontweight="bold")
  note = "White cross: the nearest patch. Below each image its class and that patch's squared "
  note += "distance; framed: of another class."
  sheet.text(_MARGIN, 0.36, note, color=canvas.GREY, size=7.5)
  titles = ("Comes from", "Nearest in training", "Nearest in test")
  for start, text in zip(starts[not sourced :], titles[not sourced :]):
    sheet.text(start, head - 0.22, text, va="baseline", fontweight="bold")
  for row, prototype in enumerate(prototypes):
    top = head + row * band
    sheet.text(_MARGIN, top - 0.17, f"prototype {prototype.prototype_id}", size=7.5)
    if prototype.source is not None:
      axes = sheet.axes(starts[0], top, side, side)
      show_image(axes, prototype.source.image)
      draw_box(axes, prototype.source.box, width=1.4)
    for start, patches in zip(starts[1:], (prototype.train, prototype.test)):
      for place, patch in enumerate(patches):
        _near_patch(sheet, start + place * (side + gap), top, side, patch)
  return sheet.figure


def _near_patch(sheet: _Sheet, left: float, top: float, side: float, patch: NearPatch) -> None:
  axes = sheet.axes(left, top, side, side)
  show_image(axes, patch.image)
  draw_box(axes, patch.box, width=1.4)
  draw_peak(axes, patch.peak, size=6)
  color = canvas.INK if patch.own_class else canvas.VERMILLION
  if not patch.own_class:
    height, width = patch.image.shape[:2]
    rim = 0.025 * width  # Around the image, so that a box at its border is seen.
    frame = {"fill": False, "edgecolor": color, "linewidth": 2.4, "clip_on": False}
    axes.add_patch(Rectangle((-rim, -rim), width + 2 * rim, height + 2 * rim, **frame))
  name = canvas.class_label(patch.class_name, max_length=22)
  sheet.text(left, top + side + 0.07, f"{name}\n{patch.sq_dist:.3f}", size=6.5, color=color)
