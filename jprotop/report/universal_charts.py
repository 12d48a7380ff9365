"""Universal patterns as pictures."""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from jprotop.report import canvas

_MOST = 6


def patterns(found: Mapping[str, Float[np.ndarray, "S S 3"]], eps: float) -> Figure:
  """The first few patterns, from -eps (black) over no change (grey) to eps (white), by colour.

  Args:
    found: by what each is fitted for.
  """
  shown = list(found.items())[:_MOST]
  columns = min(len(shown), 3)
  rows = math.ceil(len(shown) / columns)
  figure = Figure(figsize=(2.2 * columns, 2.5 * rows), layout="constrained", facecolor="white")
  panels = figure.subplots(rows, columns, squeeze=False).ravel()
  for axes in panels:
    axes.set_axis_off()
  for axes, (name, pattern) in zip(panels, shown):
    axes.imshow(np.clip(0.5 + pattern / (2 * max(eps, 1e-9)), 0, 1), interpolation="nearest")
    title = canvas.class_label(name, max_length=26)
    axes.set_title(title, loc="left", fontsize=8.5, color=canvas.INK)
  return figure
