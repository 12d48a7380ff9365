"""A page of square pictures in two rows: the frame of Figures 1 to 5 and 7 to 9."""

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jprotop.errors import InputError
from jprotop.prototypes.push import Source
from jprotop.regions import Box
from jprotop.report import canvas
from jprotop.report.drawing import (
  check_box,
  check_image,
  crop,
  draw_box,
  draw_mask,
  draw_peak,
  has_range,
  heat_overlay,
  peak_mark,
  show_image,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
  """One version of an image and where the network finds a prototype in it.

  map_up is the similarity upsampled to the image, box its region of high activation, peak the
  pixels of the map's strongest cell, similarity the prototype's image score, which is that cell's,
  and predicted the class that the network sees.
  """

  image: Float[np.ndarray, "H W 3"]
  map_up: Float[np.ndarray, "H W"]
  box: Box
  peak: Box
  similarity: float
  predicted: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prototype:
  """A prototype, and the training patch it was pushed onto; None where that is not known."""

  prototype_id: int
  prototype_class: str
  source: Source | None


def check_prototype(prototype: Prototype) -> None:
  """InputError unless image and box, where they are known, fit each other."""
  if prototype.source is not None:
    check_image(prototype.source.image, "source image")
    check_box(prototype.source.box, prototype.source.image, "source box")


def check_view(view: View, name: str, size: tuple[int, int]) -> None:
  """InputError, naming the view, unless all in it is of one image of (H, W)."""
  check_image(view.image, name)
  for what, found in (("image", view.image.shape[:2]), ("map_up", np.shape(view.map_up))):
    if found != size:
      raise InputError(f"the {what} of {name} is {found}, but the clean image {size}; use one size")
  check_box(view.box, view.image, f"{name} box")
  check_box(view.peak, view.image, f"{name} peak")


def shared_scale(views: Iterable[View]) -> Normalize:
  """One scale for the heat maps of all views: from their lowest value to their highest."""
  maps = [view.map_up for view in views]
  return Normalize(min(m.min() for m in maps), max(m.max() for m in maps))


class Page:
  """Square panels at fixed places, in inches: text never moves the pictures."""

  side, gap, head, margin = 2.05, 0.16, 0.46, 0.15
  top, foot, bar = 0.6, 0.42, 0.78

  def __init__(self, columns: int):
    self.columns = columns
    self.width = 2 * self.margin + columns * (self.side + self.gap) + self.bar
    self.height = self.top + 2 * (self.head + self.side) + self.foot
    self.figure = Figure(figsize=(self.width, self.height), facecolor="white")

  def panel(self, column: int, row: float, title: str, *, bold: str = "") -> Axes:
    """The axes of one square; row 0 is the upper one, 1 the lower one, 0.5 between the two."""
    # The scale bar stands to the right of the heat maps, so the noise comes after it.
    left = self.margin + column * (self.side + self.gap) + (self.bar if column > 3 else 0)
    bottom = self.foot + (1 - row) * (self.head + self.side)
    axes = self.figure.add_axes(self._fractions(left, bottom, self.side, self.side))
    x, y = left / self.width, (bottom + self.side + 0.06) / self.height
    text = {"fontsize": 8.5, "color": canvas.INK, "va": "bottom", "linespacing": 1.25}
    self.figure.text(x, y, title + ("\n" if bold else ""), **text)
    self.figure.text(x, y, bold, fontweight="bold", **text)
    return axes

  def left_columns(self, prototype: Prototype) -> None:
    """The source image with the prototype's box, and the prototype itself, where it is known."""
    left = self.panel(0, 0.5, "Training image the\nprototype comes from")
    name = canvas.class_label(prototype.prototype_class, max_length=28)
    right = self.panel(1, 0.5, f"Prototype {prototype.prototype_id} of", bold=name)
    source = prototype.source
    if source is None:
      for axes in (left, right):
        axes.set_axis_off()
        axes.text(0.5, 0.5, "not known", ha="center", fontsize=8.5, color=canvas.GREY)
      return
    show_image(left, source.image)
    draw_box(left, source.box)
    show_image(right, crop(source.image, source.box))

  def row(
    self,
    row: int,
    title: str,
    view: View,
    scale: Normalize,
    *,
    mask: Bool[np.ndarray, "H W"] | None = None,
  ) -> None:
    """The input and its heat map, both with the box and with the outline of a mask."""
    predicted = canvas.class_label(view.predicted, max_length=28)
    left = self.panel(2, row, title, bold=predicted)
    right = self.panel(3, row, "Where it is found", bold=f"similarity {view.similarity:.2f}")
    show_image(left, view.image)
    show_image(right, heat_overlay(view.image, view.map_up, low=scale.vmin, high=scale.vmax))
    for axes in (left, right):
      if mask is not None:
        draw_mask(axes, mask)
      draw_box(axes, view.box)
      draw_peak(axes, view.peak)

  def scale_bar(self, scale: Normalize) -> None:
    """The colours of both heat maps."""
    left = self.margin + 4 * (self.side + self.gap) - 0.04
    height = 2 * self.side + self.head
    axes = self.figure.add_axes(self._fractions(left, self.foot, 0.12, height))
    if has_range(scale):
      bar = self.figure.colorbar(ScalarMappable(scale, colormaps["jet"]), cax=axes)
      bar.outline.set_visible(False)
      bar.set_label("similarity, one scale for both maps", fontsize=8, color=canvas.INK)
      axes.tick_params(labelsize=7.5, colors=canvas.INK)
    else:
      axes.set_axis_off()

  def caption(self, title: str, marks: dict[str, str], *, verdict: str = "") -> None:
    """The title above, with what came of it, and below what the marks mean."""
    x, y = self.margin / self.width, 1 - 0.12 / self.height
    style = {"va": "top", "color": canvas.INK}
    self.figure.text(x, y, title, fontsize=11, fontweight="bold", **style)
    self.figure.text(x, y - 0.22 / self.height, verdict, fontsize=9.5, **style)
    peak = peak_mark((0, 0))
    peak.set_label("strongest cell: where the prototype is found")
    handles = [peak] + [
      Patch(facecolor="#555555", edgecolor=color, linewidth=1.8, label=label)
      for label, color in marks.items()
    ]
    anchor = (self.margin / self.width, 0.02)
    self.figure.legend(
      handles=handles, loc="lower left", bbox_to_anchor=anchor, ncols=3, fontsize=8.5,
      frameon=False, borderpad=0, borderaxespad=0,
    )  # fmt: skip

  def _fractions(self, left: float, bottom: float, width: float, height: float) -> tuple:
    return left / self.width, bottom / self.height, width / self.width, height / self.height
