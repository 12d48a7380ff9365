"""Success by eps: how much noise it takes to move an image's top prototype."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jprotop.report import canvas
from jprotop.report.paper_tables import NETWORK_NAMES

_LOOKS = {
  "standard": (canvas.BLUE, "o"),
  "altered": (canvas.ORANGE, "v"),
  "remedied": (canvas.GREEN, "D"),
  "adversarial": (canvas.VERMILLION, "s"),
}


def eps_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
  """The share of images that the strong attack moves, by eps, a pair of lines a network.

  Args:
    curves: by network, rows {"eps", "strong": {"moved", "moved_and_prediction_kept"}}.
  """
  figure = Figure(figsize=(6.4, 3.8), layout="constrained", facecolor="white")
  axes = figure.subplots()
  title = "Top prototype moved off S by the strong attack"
  canvas.style_axes(axes, title=title, ylabel="images, %")
  ways = (("moved_and_prediction_kept", "-", "class kept"), ("moved", ":", "any class"))
  lines = [(network, rows, *way) for network, rows in curves.items() for way in ways]
  for number, (network, rows, name, dash, what) in enumerate(lines):
    shift = 1.04 ** (number - (len(lines) - 1) / 2)  # So that intervals do not hide each other.
    shares = [row["strong"][name] for row in rows]
    label = f"{NETWORK_NAMES[network]}, {what}, n = {shares[0]['total']}"
    places = [255 * row["eps"] * shift for row in rows]
    _draw(axes, places, shares, (*_LOOKS[network], dash), label)
  levels = sorted({255 * row["eps"] for rows in curves.values() for row in rows})
  axes.set_xscale("log", base=2)
  axes.set_xticks(levels, [f"{level:.3g}" for level in levels], fontsize=8.5)
  axes.minorticks_off()
  axes.set(ylim=(-3, 103), xlim=(levels[0] / 1.3, levels[-1] * 1.4))
  axes.set_xlabel("eps, in 1/255 (logarithmic)", fontsize=9, color=canvas.INK)
  figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
  return figure


def _draw(
  axes: Axes,
  places: Sequence[float],
  shares: Sequence[Mapping[str, Any]],
  look: tuple[str, str, str],
  label: str,
) -> None:
  """A line with the intervals of its shares, of a colour, a marker and a dash."""
  values = 100 * np.array([share["value"] for share in shares])
  low, high = 100 * np.array([share["interval"] for share in shares]).T
  color, marker, dash = look
  style: dict[str, Any] = {"color": color, "linestyle": dash, "marker": marker, "linewidth": 1.6}
  if dash == ":":
    style |= {"markerfacecolor": "white"}
  bars = np.maximum(0, [values - low, high - values])
  axes.errorbar(places, values, bars, markersize=5, capsize=3, label=label, **style)
