"""Pictures of the JPEG experiment: Figure 2 (and 7 to 9) and Figure 6."""

import dataclasses

import numpy as np
from matplotlib.figure import Figure

from jprotop.errors import InputError
from jprotop.figures import canvas
from jprotop.figures.drawing import check_box, check_image, crop, draw_box, show_image
from jprotop.figures.page import Page, View, shared_scale
from jprotop.regions import Box


@dataclasses.dataclass(frozen=True, kw_only=True)
class JpegExample:
  """One test image with and without artefacts, and the prototype that stands out in the former.

  source_image [H, W, 3] in [0, 1] and source_box say where the prototype comes from; None where
  that is not known.
  """

  source_image: np.ndarray | None
  source_box: Box | None
  compressed: View
  clean: View
  quality: int
  prototype_id: int
  prototype_class: str
  true_class: str
  image_id: str | int


def jpeg_example(example: JpegExample) -> Figure:
  """Figure 2: the prototype and its source; above the compressed image, below the original.

  Both heat maps share one scale, printed beside them.
  """
  views = (example.compressed, example.clean)
  for name, view in zip(("compressed", "clean"), views):
    check_image(view.image, name)
    check_box(view.box, view.image, f"{name} box")
  page = Page(columns=4)
  page.left_columns(
    example.prototype_id,
    example.prototype_class,
    image=example.source_image,
    box=example.source_box,
  )
  scale = shared_scale(views)
  kept = example.clean.predicted == example.compressed.predicted
  title = f"JPEG quality {example.quality}, predicted"
  page.row(0, title, example.compressed, scale)
  page.row(1, f"Original, {'still' if kept else 'now'} predicted", example.clean, scale)
  page.scale_bar(scale)
  title = f"Image {canvas.plain(example.image_id)}: {canvas.class_label(example.true_class)}"
  page.caption(title, {"high similarity to the prototype": canvas.BOX_YELLOW})
  return page.figure


def artefacts(clean: np.ndarray, compressed: np.ndarray, *, quality: int, gain: int = 4) -> Figure:
  """Figure 6: an image without and with artefacts, the detail where they are strongest, and the
  difference `gain` times stronger.

  Args:
    clean, compressed: [H, W, 3] in [0, 1], at the resolution at which JPEG acts.
    quality: of the compression, for the titles.
  """
  check_image(clean, "clean")
  check_image(compressed, "compressed")
  if clean.shape != compressed.shape:
    raise InputError(f"clean is {clean.shape}, but compressed {compressed.shape}; use one size")
  difference = np.abs(clean - compressed)
  height, width = clean.shape[:2]
  box = strongest_square(difference.mean(axis=-1), max(8, min(height, width) // 4))
  side = 2.1
  size = (3 * side + 0.2, side * (min(height / width, 2) + 1) + 0.6)
  figure = Figure(figsize=size, layout="constrained", facecolor="white")
  panels = figure.subplots(2, 3, height_ratios=(min(height / width, 2), 1))
  columns = {
    "Original": clean,
    f"JPEG quality {quality}": compressed,
    f"Difference, {gain} times stronger": np.clip(gain * difference, 0, 1),
  }
  for (upper, lower), (title, image) in zip(panels.T, columns.items()):
    show_image(upper, image)
    draw_box(upper, box)
    upper.set_title(title, fontsize=9, color=canvas.INK, loc="left")
    show_image(lower, crop(image, box))
    lower.images[0].set_interpolation("nearest")  # Smoothing would hide the blocks.
  return figure


def strongest_square(strength: np.ndarray, side: int) -> Box:
  """The square of that side, in pixels, with the largest sum of strength [H, W]; the first of
  equals. Smaller where the picture is."""
  height, width = (min(side, length) for length in strength.shape)
  total = np.pad(strength.astype(np.float64), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
  sums = (
    total[height:, width:] - total[:-height, width:] - total[height:, :-width]
    + total[:-height, :-width]
  )  # fmt: skip
  y, x = np.unravel_index(sums.argmax(), sums.shape)
  return Box(int(y), int(y) + height, int(x), int(x) + width)
