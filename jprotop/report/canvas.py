"""The palette, the labels and the one way a figure reaches the disk."""

import io
import math
import os
import re
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from jprotop.files import atomic_path

# Okabe and Ito's colours: told apart with every common kind of colour blindness.
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PLUM = "#9C3F78"
INK, GREY, FAINT = "#222222", "#767676", "#D9D9D9"
BANDS = ("#F3F3F3", "#FFFFFF")
# Figure 1's rectangles: yellow for high activation, green for the perturbed area.
BOX_YELLOW, NOISE_GREEN = "#FFE100", "#00C853"
# What marks the strongest cell of a map: no colour of a heat map, with a dark rim on any image.
PEAK_WHITE = "#FFFFFF"

DPI = 150
MAX_BYTES = 300_000


def class_label(name: str, *, max_length: int = 30) -> str:
  """A class name to print: '025.Pelagic_Cormorant' becomes 'Pelagic Cormorant'."""
  return plain(re.sub(r"^\d+\.", "", name).replace("_", " "), max_length=max_length)


def plain(text: str | int, *, max_length: int = 60) -> str:
  """Text that matplotlib shows as it stands, `$` no formula; where too long, its middle goes."""
  text, end = str(text), (max_length - 1) // 2
  if len(text) > max_length:
    text = text[: max_length - 1 - end] + "…" + text[len(text) - end :]
  return text.replace("$", r"\$")


def style_axes(axes: Axes, *, title: str = "", ylabel: str = "") -> None:
  """The common look of a plot: light grid, no box, small type."""
  axes.set_title(title, loc="left", fontsize=10, color=INK)
  axes.set_ylabel(ylabel, fontsize=9, color=INK)
  axes.tick_params(labelsize=8, colors=INK)
  axes.spines[["top", "right"]].set_visible(False)
  axes.grid(axis="y", color=FAINT, linewidth=0.7)
  axes.set_axisbelow(True)


def png_bytes(figure: Figure, *, dpi: int = DPI, max_bytes: int = MAX_BYTES) -> bytes:
  """The figure as PNG: in full colour if it fits in max_bytes, else in 256 colours, else smaller.

  So a saved picture is for looking at: its pixels are not the network's input any more.
  The resolution is lowered as the size demands, but not below 60 dots per inch: a figure too
  large even then comes out larger than max_bytes.
  """
  while True:
    picture = _rasterise(figure, dpi)
    for candidate in (picture, _few_colours(picture)):
      buffer = io.BytesIO()
      candidate.save(buffer, format="PNG", dpi=(dpi, dpi))
      if buffer.tell() <= max_bytes or (dpi <= 60 and candidate is not picture):
        return buffer.getvalue()
    dpi = max(60, int(dpi * min(0.9, 0.95 * math.sqrt(max_bytes / buffer.tell()))))


def save(
  figure: Figure, path: str | os.PathLike, *, dpi: int = DPI, max_bytes: int = MAX_BYTES
) -> Path:
  """Writes the figure to path as PNG, atomically; returns the path."""
  data = png_bytes(figure, dpi=dpi, max_bytes=max_bytes)
  with atomic_path(path) as temporary:
    temporary.write_bytes(data)
  return Path(path)


def _few_colours(picture: Image.Image) -> Image.Image:
  """256 colours that span all of the picture's, dithered: heat maps stay smooth."""
  sample = picture.resize(
    (picture.width // 3 + 1, picture.height // 3 + 1), Image.Resampling.NEAREST
  )
  palette = sample.quantize(256, method=Image.Quantize.MAXCOVERAGE)
  return picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def _rasterise(figure: Figure, dpi: int) -> Image.Image:
  previous = figure.dpi
  figure.set_dpi(dpi)
  try:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
  finally:
    figure.set_dpi(previous)
