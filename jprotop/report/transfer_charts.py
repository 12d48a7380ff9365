"""The matrix of a transfer: how often one network's noise moves another's prototype."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jprotop.report import canvas


def matrix(names: Sequence[str], cells: Sequence[Mapping[str, Any]]) -> Figure:
  """A row a network that the noise was made on, and one for random noise; a column a victim.

  Args:
    names: of the networks.
    cells: {"source", "victim", "moved", "control"}, the latter two shares; each pair of names once.
  """
  rows = [*names, "random noise"]
  shares = {(cell["source"], cell["victim"]): cell["moved"] for cell in cells}
  shares |= {("random noise", cell["victim"]): cell["control"] for cell in cells}
  values = np.array([[shares[row, name]["value"] or 0.0 for name in names] for row in rows])
  side = 2.4 + 1.0 * len(names)
  figure = Figure(figsize=(side + 0.8, side), layout="constrained", facecolor="white")
  axes = figure.subplots()
  image = axes.imshow(values, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
  for (y, x), value in np.ndenumerate(values):
    share = shares[rows[y], names[x]]
    text = f"{100 * value:.0f}%\n{share['count']}/{share['total']}" if share["total"] else "none"
    color = "white" if value > 0.55 else canvas.INK
    axes.text(x, y, text, ha="center", va="center", fontsize=8, color=color)
  axes.axhline(len(names) - 0.5, color=canvas.INK, linewidth=1.2)
  labels = [canvas.plain(name, max_length=24) for name in rows]
  axes.set_xticks(range(len(names)), labels[:-1], rotation=30, ha="right", fontsize=8)
  axes.set_yticks(range(len(rows)), labels, fontsize=8)
  axes.set_xlabel("seen by (its own prototype left its own S)", fontsize=9)
  axes.set_ylabel("noise made on", fontsize=9)
  bar = figure.colorbar(image, ax=axes, shrink=0.7)
  bar.set_label("share of the images", fontsize=8)
  bar.ax.tick_params(labelsize=7.5)
  bar.outline.set_visible(False)
  return figure
