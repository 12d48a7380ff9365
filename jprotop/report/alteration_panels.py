"""Images with and without artefacts: Figure 2 (and 7 to 9) and Figure 6."""

import dataclasses

import numpy as np
from jaxtyping import Real
from matplotlib.figure import Figure

from jprotop.errors import InputError
from jprotop.regions import Box
from jprotop.report import canvas
from jprotop.report.drawing import check_image, crop, draw_box, show_image
from jprotop.report.page import Page, Prototype, View, check_prototype, check_view, shared_scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlteredExample:
  """One test image with and without artefacts, and the prototype that stands out in the former."""

  prototype: Prototype
  altered: View
  clean: View
  title: str
  true_class: str
  image_id: str | int


def altered_image(example: AlteredExample) -> Figure:
  """Figure 2: the prototype and its source; above the altered image, below the original.

  Both heat maps share one scale, printed beside them.
  """
  views = (example.altered, example.clean)
  check_prototype(example.prototype)
  for name, view in zip(("altered", "clean"), views):
    check_view(view, name, example.clean.image.shape[:2])
  page = Page(columns=4)
  page.left_columns(example.prototype)
  scale = shared_scale(views)
  kept = example.clean.predicted == example.altered.predicted
  page.row(0, f"{example.title}, predicted", example.altered, scale)
  page.row(1, f"Original, {'still' if kept else 'now'} predicted", example.clean, scale)
  page.scale_bar(scale)
  title = f"Image {canvas.plain(example.image_id)}: {canvas.class_label(example.true_class)}"
  page.caption(title, {"high similarity to the prototype": canvas.BOX_YELLOW})
  return page.figure


def artefacts(
  clean: Real[np.ndarray, "..."], altered: Real[np.ndarray, "..."], *, title: str, gain: int = 4
) -> Figure:
  """Figure 6: an image without and with artefacts, the detail where they are strongest, and the
  difference `gain` times stronger.

  Args:
    clean, altered: [H, W, 3] in [0, 1], at the resolution at which JPEG acts.
    title: says how it was altered.
  """
  check_image(clean, "clean")
  check_image(altered, "altered")
  if clean.shape != altered.shape:
    raise InputError(f"clean is {clean.shape}, but altered {altered.shape}; use one size")
  difference = np.abs(clean - altered)
  height, width = clean.shape[:2]
  box = strongest_square(difference.mean(axis=-1), max(8, min(height, width) // 4))
  side = 2.1
  size = (3 * side + 0.2, side * (min(height / width, 2) + 1) + 0.6)
  figure = Figure(figsize=size, layout="constrained", facecolor="white")
  panels = figure.subplots(2, 3, height_ratios=(min(height / width, 2), 1))
  columns = {
    "Original": clean,
    title: altered,
    f"Difference, {gain} times stronger": np.clip(gain * difference, 0, 1),
  }
  for (upper, lower), (title, image) in zip(panels.T, columns.items()):
    show_image(upper, image)
    draw_box(upper, box)
    upper.set_title(title, fontsize=9, color=canvas.INK, loc="left")
    show_image(lower, crop(image, box))
    lower.images[0].set_interpolation("nearest")  # Smoothing would hide the blocks.
  return figure


def strongest_square(strength: Real[np.ndarray, "H W"], side: int) -> Box:
  """The square of that side, in pixels, with the largest sum of strength; the first of equals.
  Smaller where the picture is."""
  height, width = (min(side, length) for length in strength.shape)
  total = np.pad(strength.astype(np.float64), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
  sums = (
    total[height:, width:] - total[:-height, width:] - total[height:, :-width]
    + total[:-height, :-width]
  )  # fmt: skip
  y, x = np.unravel_index(sums.argmax(), sums.shape)
  return Box(int(y), int(y) + height, int(x), int(x) + width)
