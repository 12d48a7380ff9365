"""Heat maps, boxes and masks on an image.

Images are float [H, W, 3] in [0, 1]; pixel axes run over [0, W] x [0, H], so that the edges of a
half-open box are the edges of its pixels.
"""

import numpy as np
from jaxtyping import Bool, Float, Float32, Integer, Real
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from jprotop.errors import InputError
from jprotop.regions import Box, tight_box
from jprotop.report import canvas


def heat_overlay(
  image: Real[np.ndarray, "..."],
  heat: Real[np.ndarray, "_ _"],
  *,
  low: float | None = None,
  high: float | None = None,
) -> Float32[np.ndarray, "H W 3"]:
  """0.5 * image + 0.3 * JET((heat - low) / (high - low)), as in the reference.

  image is [H, W, 3] in [0, 1], heat [H, W] of any range; low and high are its own minimum and
  maximum unless a scale is shared. Values off that scale take its end colours: the reference casts
  them to uint8 as they are, which wraps around and paints hot spots where the map is coldest.
  """
  image, heat = check_image(image, "image"), np.asarray(heat, np.float32)
  if heat.shape != image.shape[:2] or not np.isfinite(heat).all():
    raise InputError(
      f"heat has shape {heat.shape}; it must be finite, one value a pixel {image.shape[:2]}"
    )
  low = float(heat.min() if low is None else low)
  high = float(heat.max() if high is None else high)
  scaled = (heat - low) / (high - low) if high > low else np.zeros_like(heat)
  steps = (255 * np.clip(scaled, 0, 1)).astype(np.uint8)
  return (0.5 * image + 0.3 * colormaps["jet"](steps)[..., :3]).astype(np.float32)


def has_range(scale: Normalize) -> bool:
  """Whether a scale of heat maps is of more than one value."""
  return scale.vmin is not None and scale.vmax is not None and scale.vmax > scale.vmin


def mask_edges(mask: Bool[np.ndarray, "H W"]) -> Integer[np.ndarray, "E 2 2"]:
  """The outline of a mask along pixel edges: segments of (x, y) points."""
  padded = np.pad(np.asarray(mask, bool), 1)
  flat = _runs(padded[1:, 1:-1] != padded[:-1, 1:-1])
  upright = _runs((padded[1:-1, 1:] != padded[1:-1, :-1]).T)
  return np.concatenate([flat, upright[..., ::-1]])


def _runs(edges: Bool[np.ndarray, "L M"]) -> Integer[np.ndarray, "E 2 2"]:
  """Each run of True in a row of edges, as its two ends (place in the row, row)."""
  steps = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
  return np.stack([np.argwhere(steps == 1), np.argwhere(steps == -1)], 1)[..., ::-1]


def show_image(axes: Axes, image: Float[np.ndarray, "H W 3"]) -> None:
  """Draws an image over [0, W] x [0, H], y downwards, without ticks."""
  height, width = image.shape[:2]
  # Patches are enlarged many times, whole images hardly: only the former would look like bricks.
  smooth = "bicubic" if max(height, width) <= 112 else "antialiased"
  axes.imshow(image, extent=(0, width, height, 0), interpolation=smooth)
  axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
  axes.spines[:].set_visible(False)


def draw_box(axes: Axes, box: Box, *, color: str = canvas.BOX_YELLOW, width: float = 1.8) -> None:
  """Outlines a box, with a thin dark rim so that it shows on any image."""
  box = Box(*box)
  corner, size = (box.x0, box.y0), (box.x1 - box.x0, box.y1 - box.y0)
  patch = Rectangle(corner, *size, fill=False, edgecolor=color, linewidth=width, clip_on=False)
  patch.set_path_effects([withStroke(linewidth=width + 1.2, foreground="#00000099")])
  axes.add_patch(patch)


def draw_peak(axes: Axes, box: Box, *, size: float = 9) -> None:
  """Marks the middle of a map's strongest cell, whose pixels are `box`, with a white cross."""
  axes.add_line(peak_mark(((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2), size=size))


def peak_mark(place: tuple[float, float], *, size: float = 9) -> Line2D:
  """The cross of `draw_peak` at (x, y)."""
  x, y = place
  return Line2D(
    [x], [y], linestyle="none", marker="X", markersize=size, markeredgewidth=0.9,
    markerfacecolor=canvas.PEAK_WHITE, markeredgecolor="#111111", clip_on=False,
  )  # fmt: skip


def draw_mask(
  axes: Axes, mask: Bool[np.ndarray, "H W"], *, color: str = canvas.NOISE_GREEN
) -> None:
  """Outlines a mask: a rectangle where it is one, else the edges of its pixels."""
  if not mask.any():
    return
  box = tight_box(mask)
  if mask[box.y0 : box.y1, box.x0 : box.x1].all():
    draw_box(axes, box, color=color, width=3.6)
    return
  edges = mask_edges(mask)
  for ink, width in (("#333333", 3.4), (color, 2.2)):
    lines = LineCollection(list(edges), colors=ink, linewidths=width, capstyle="projecting")
    lines.set_clip_on(False)
    axes.add_collection(lines)


def crop(image: Float[np.ndarray, "H W 3"], box: Box) -> Float[np.ndarray, "h w 3"]:
  """The pixels of a box; an error if it is empty or reaches off the image."""
  check_box(box, image, "box")
  y0, y1, x0, x1 = box
  return np.asarray(image)[y0:y1, x0:x1]


def check_image(image: Real[np.ndarray, "..."], name: str) -> Float[np.ndarray, "H W 3"]:
  """The image as an array; an error that names it unless it is float [H, W, 3] in [0, 1]."""
  image = np.asarray(image)
  if image.ndim != 3 or image.shape[2] != 3 or image.dtype.kind != "f":
    raise InputError(f"{name} is {image.dtype} {image.shape}; give floats [H, W, 3] in [0, 1]")
  if not (image.min() >= 0 and image.max() <= 1):
    raise InputError(f"{name} spans [{image.min():.3g}, {image.max():.3g}]; scale it to [0, 1]")
  return image


def check_box(box: Box, image: Float[np.ndarray, "H W 3"], name: str) -> None:
  """An error that names the box if it is empty or reaches off the image."""
  y0, y1, x0, x1 = box
  height, width = image.shape[:2]
  if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
    raise InputError(
      f"{name}={tuple(box)} must be (y0, y1, x0, x1), half-open, not empty and inside the"
      f" {height} x {width} image"
    )
