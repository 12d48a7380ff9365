"""Figure 1 of the paper and the gallery of prototypes."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jprotop.errors import InputError
from jprotop.figures import canvas
from jprotop.figures.drawing import (
  check_box,
  check_image,
  crop,
  draw_box,
  draw_mask,
  heat_overlay,
  show_image,
)
from jprotop.regions import Box


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadOnStomachExample:
  """One attacked image and the prototype that moved, all that Figure 1 shows of them.

  Images are [H, W, 3] in [0, 1], maps are similarities upsampled to the image [H, W], boxes the
  regions of high activation, noise_mask [H, W] the pixels that the noise may change. The source
  image may have another size. clean_similarity and attacked_similarity are the prototype's image
  scores: the maximum of its similarity map. moved: whether that maximum is now in S_noisy; None
  leaves it unsaid.
  """

  source_image: np.ndarray
  source_box: Box
  image: np.ndarray
  attacked: np.ndarray
  clean_map_up: np.ndarray
  attacked_map_up: np.ndarray
  clean_box: Box
  attacked_box: Box
  noise_mask: np.ndarray
  clean_similarity: float
  attacked_similarity: float
  prototype_id: int
  prototype_class: str
  true_class: str
  predicted_before: str
  predicted_after: str
  image_id: str | int
  moved: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prototype:
  """A pushed prototype: the training image it was pushed onto and the box of its patch."""

  prototype_id: int
  prototype_class: str
  source_image: np.ndarray
  source_box: Box
  image_id: str | int


def head_on_stomach(example: HeadOnStomachExample, *, noise_gain: int | None = 16) -> Figure:
  """Figure 1: the prototype and its source; where it is found in the clean and the noisy image.

  Both heat maps share one scale, printed beside them. noise_gain adds a last picture, the noise
  |attacked - clean| times that factor; None leaves it out.
  """
  _check_example(example)
  page = _Page(columns=5 if noise_gain else 4)
  page.left_columns(example)
  maps = (example.clean_map_up, example.attacked_map_up)
  scale = Normalize(min(m.min() for m in maps), max(m.max() for m in maps))
  page.row(0, example, scale)
  page.row(1, example, scale)
  if noise_gain:
    noise = np.abs(np.asarray(example.attacked, np.float32) - example.image)
    axes = page.panel(4, 0.5, f"The noise alone\n{noise_gain} times stronger")
    show_image(axes, np.clip(noise_gain * noise, 0, 1))
  page.scale_bar(scale)
  page.caption(example)
  return page.figure


class _Page:
  """Square panels at fixed places, in inches: text never moves the pictures."""

  side, gap, head, margin = 2.05, 0.16, 0.46, 0.15
  top, foot, bar = 0.42, 0.42, 0.78

  def __init__(self, columns: int):
    self.columns = columns
    self.width = 2 * self.margin + columns * (self.side + self.gap) + self.bar
    self.height = self.top + 2 * (self.head + self.side) + self.foot
    self.figure = Figure(figsize=(self.width, self.height), facecolor="white")

  def panel(self, column: int, row: float, title: str, *, bold: str = "") -> Axes:
    """The axes of one square; row 0 is the clean one, 1 the noisy one, 0.5 between the two."""
    # The scale bar stands to the right of the heat maps, so the noise comes after it.
    left = self.margin + column * (self.side + self.gap) + (self.bar if column > 3 else 0)
    bottom = self.foot + (1 - row) * (self.head + self.side)
    axes = self.figure.add_axes(self._fractions(left, bottom, self.side, self.side))
    x, y = left / self.width, (bottom + self.side + 0.06) / self.height
    text = {"fontsize": 8.5, "color": canvas.INK, "va": "bottom", "linespacing": 1.25}
    self.figure.text(x, y, title + ("\n" if bold else ""), **text)
    self.figure.text(x, y, bold, fontweight="bold", **text)
    return axes

  def left_columns(self, example: HeadOnStomachExample) -> None:
    """The source image with the prototype's box, and the prototype itself."""
    axes = self.panel(0, 0.5, "Training image the\nprototype comes from")
    show_image(axes, example.source_image)
    draw_box(axes, example.source_box)
    name = canvas.class_label(example.prototype_class, max_length=28)
    axes = self.panel(1, 0.5, f"Prototype {example.prototype_id} of", bold=name)
    show_image(axes, crop(example.source_image, example.source_box))

  def row(self, row: int, example: HeadOnStomachExample, scale: Normalize) -> None:
    """The input and its heat map, both with the box; the noisy row also shows the noise's place."""
    noisy = row == 1
    image = example.attacked if noisy else example.image
    heat = example.attacked_map_up if noisy else example.clean_map_up
    box = example.attacked_box if noisy else example.clean_box
    similarity = example.attacked_similarity if noisy else example.clean_similarity
    predicted = example.predicted_after if noisy else example.predicted_before
    kept = example.predicted_after == example.predicted_before
    title = f"With noise, {'still' if kept else 'now'} predicted" if noisy else "Clean, predicted"
    left = self.panel(2, row, title, bold=canvas.class_label(predicted, max_length=28))
    right = self.panel(3, row, "Where it is found", bold=f"similarity {similarity:.2f}")
    show_image(left, image)
    show_image(right, heat_overlay(image, heat, low=scale.vmin, high=scale.vmax))
    for axes in (left, right):
      if noisy:
        draw_mask(axes, np.asarray(example.noise_mask, bool))
      draw_box(axes, box)

  def scale_bar(self, scale: Normalize) -> None:
    """The colours of both heat maps."""
    left = self.margin + 4 * (self.side + self.gap) - 0.04
    height = 2 * self.side + self.head
    axes = self.figure.add_axes(self._fractions(left, self.foot, 0.12, height))
    if scale.vmax > scale.vmin:
      bar = self.figure.colorbar(ScalarMappable(scale, colormaps["jet"]), cax=axes)
      bar.outline.set_visible(False)
      bar.set_label("similarity, one scale for both maps", fontsize=8, color=canvas.INK)
      axes.tick_params(labelsize=7.5, colors=canvas.INK)
    else:
      axes.set_axis_off()

  def caption(self, example: HeadOnStomachExample) -> None:
    """The title above and the key below."""
    title = f"Image {canvas.plain(example.image_id)}: {canvas.class_label(example.true_class)}"
    if example.moved is not None:
      title += f" ({'moved' if example.moved else 'not moved'})"
    x, y = self.margin / self.width, 1 - 0.12 / self.height
    self.figure.text(x, y, title, fontsize=11, fontweight="bold", va="top", color=canvas.INK)
    marks = {
      "high similarity to the prototype": canvas.BOX_YELLOW,
      "pixels that the noise may change": canvas.NOISE_GREEN,
    }
    handles = [
      Patch(facecolor="#555555", edgecolor=color, linewidth=1.8, label=label)
      for label, color in marks.items()
    ]
    anchor = (self.margin / self.width, 0.02)
    self.figure.legend(
      handles=handles, loc="lower left", bbox_to_anchor=anchor, ncols=2, fontsize=8.5,
      frameon=False, borderpad=0, borderaxespad=0,
    )  # fmt: skip

  def _fractions(self, left: float, bottom: float, width: float, height: float) -> tuple:
    return left / self.width, bottom / self.height, width / self.width, height / self.height


def prototype_gallery(
  prototypes: Iterable[Prototype], *, max_classes: int = 15, max_prototypes: int = 40
) -> Iterator[Figure]:
  """All prototypes, a band a class: the patch above, its source image with the box below.

  A figure holds at most max_classes classes and, so that its file stays small, at most
  max_prototypes prototypes (more only if a single class has more).

  Args:
    prototypes: class by class. Consumed as pages are asked for, so that the source images of all
      prototypes are never held at once.
  """
  page: list[tuple[str, list[Prototype]]] = []
  for name, members in itertools.groupby(prototypes, lambda p: p.prototype_class):
    group = list(members)
    count = sum(len(shown) for _, shown in page) + len(group)
    if page and (len(page) == max_classes or count > max_prototypes):
      yield _gallery_page(page)
      page = []
    page.append((name, group))
  if page:
    yield _gallery_page(page)


def _gallery_page(groups: list[tuple[str, list[Prototype]]]) -> Figure:
  side, gap, head, caption = 1.15, 0.1, 0.32, 0.34
  columns = max(len(members) for _, members in groups)
  band = head + 2 * side + gap / 2 + caption
  width = max(columns * (side + gap) + gap, 3.2)
  height = len(groups) * band + gap
  figure = Figure(figsize=(width, height), facecolor="white")
  for index, (name, members) in enumerate(groups):
    top = height - gap - index * band
    label = {"fontsize": 9.5, "fontweight": "bold", "va": "top", "color": canvas.INK}
    figure.text(gap / width, top / height, canvas.class_label(name), **label)
    for column, prototype in enumerate(members):
      left, bottom = gap + column * (side + gap), top - head + 0.06 - side
      size = side / width, side / height
      patch = figure.add_axes((left / width, bottom / height, *size))
      show_image(patch, crop(prototype.source_image, prototype.source_box))
      bottom -= side + gap / 2
      source = figure.add_axes((left / width, bottom / height, *size))
      show_image(source, prototype.source_image)
      draw_box(source, prototype.source_box, width=1.2)
      image = f"image {prototype.image_id}"
      text = f"prototype {prototype.prototype_id}\n{canvas.plain(image, max_length=19)}"
      place = left / width, (bottom - 0.04) / height
      figure.text(*place, text, fontsize=6.5, linespacing=1.2, va="top", color=canvas.GREY)
  return figure


def _check_example(example: HeadOnStomachExample) -> None:
  for name in ("source_image", "image", "attacked"):
    check_image(getattr(example, name), name)
  for name in ("attacked", "clean_map_up", "attacked_map_up", "noise_mask"):
    shape = np.shape(getattr(example, name))[:2]
    if shape != example.image.shape[:2]:
      raise InputError(f"{name} is {shape}, but the image {example.image.shape[:2]}; use one size")
  for name, image in [
    ("source_box", example.source_image),
    ("clean_box", example.image),
    ("attacked_box", example.image),
  ]:
    check_box(getattr(example, name), image, name)
