"""Charts of the success rate (App. F.1): by number of prototypes, and from which part to which."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jprotop.errors import InputError
from jprotop.report import canvas

_LOOKS = {"paper": (canvas.BLUE, "o", -0.1), "authors": (canvas.VERMILLION, "s", 0.1)}


def success_at_k(protocols: Mapping[str, Mapping[str, Any]]) -> Figure:
  """Success rate by number of prototypes tried, of each protocol: with the class kept, whatever the
  class, and, whatever the class, of random noise.

  Args:
    protocols: by name, what `experiments.success_numbers.summarise` returns.
  """
  if not protocols:
    raise InputError("no protocol was measured; give at least one")
  figure = Figure(figsize=(6.4, 3.6), layout="constrained", facecolor="white")
  axes = figure.subplots()
  canvas.style_axes(axes, title="Success within the first k prototypes", ylabel="images, %")
  for name, numbers in protocols.items():
    color, marker, shift = _LOOKS[name]
    for rate_at, dash, what, aside in (
      (numbers["kept"]["rate_at"], "-", f"{name}, class kept", -0.05),
      (numbers["rate_at"], "--", f"{name}, whatever the class", 0.0),
      (numbers["control"]["rate_at"], ":", f"{name}, random noise", 0.05),
    ):
      label = f"{what}, n = {_counts(rate_at)}"
      _draw_rates(axes, rate_at, shift + aside, color, marker, dash, label)
  top_k = max(numbers["top_k"] for numbers in protocols.values())
  axes.set(ylim=(-3, 103), xlim=(0.6, top_k + 0.4))
  axes.set_xlabel("k, prototypes of the image by activation", fontsize=9, color=canvas.INK)
  axes.locator_params("x", integer=True)
  if axes.get_legend_handles_labels()[0]:  # none, where no image could be attacked
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
  return figure


def _counts(rate_at: Mapping[str, Mapping]) -> str:
  totals = sorted({rate["total"] for rate in rate_at.values()})
  return " to ".join(str(n) for n in (totals[0], totals[-1])[: len(totals)])


def _draw_rates(
  axes: Axes,
  rate_at: Mapping[str, Mapping],
  shift: float,
  color: str,
  marker: str,
  dash: str,
  label: str,
) -> None:
  """A line with the rates' intervals; shifted, so that lines do not hide each other."""
  known = {int(k): rate for k, rate in rate_at.items() if rate["value"] is not None}
  if not known:
    return
  values = 100 * np.array([rate["value"] for rate in known.values()])
  low, high = 100 * np.array([rate["interval"] for rate in known.values()]).T
  style: dict[str, Any] = {"color": color, "linestyle": dash, "marker": marker, "linewidth": 1.6}
  style |= {":": {"markerfacecolor": "white"}, "--": {"alpha": 0.5}}.get(dash, {})
  bars = np.maximum(0, [values - low, high - values])
  places = np.array(list(known)) + shift
  axes.errorbar(places, values, bars, markersize=5, capsize=3, label=label, **style)


def parts(groups: Sequence[str], counts: Sequence[Sequence[int]], *, title: str = "") -> Figure:
  """Counts of successes by where the prototype sat (rows) and where it is found then (columns).

  The colour is the share of the row; labels carry the sums of rows and columns.

  Args:
    groups: G names.
    counts: [G, G], from each to each.
  """
  matrix = np.asarray(counts)
  if matrix.shape != (len(groups), len(groups)):
    raise InputError(f"counts are {matrix.shape}, but there are {len(groups)} groups")
  rows = matrix.sum(axis=1, keepdims=True)
  share = np.divide(matrix, rows, out=np.zeros(matrix.shape), where=rows > 0)
  figure = Figure(figsize=(5.6, 4.6), layout="constrained", facecolor="white")
  axes = figure.subplots()
  image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
  for (y, x), count in np.ndenumerate(matrix):
    color = "white" if share[y, x] > 0.55 else canvas.INK if count else canvas.FAINT
    axes.text(x, y, f"{count:d}", ha="center", va="center", fontsize=9, color=color)
  from_, to = matrix.sum(axis=1), matrix.sum(axis=0)
  places = range(len(groups))
  labels = [canvas.plain(f"{name} ({total})") for name, total in zip(groups, from_)]
  axes.set_yticks(places, labels, fontsize=8.5)
  labels = [canvas.plain(f"{name} ({total})") for name, total in zip(groups, to)]
  axes.set_xticks(places, labels, fontsize=8.5, rotation=40, ha="right", rotation_mode="anchor")
  axes.tick_params(length=0)
  axes.spines[:].set_visible(False)
  axes.set_ylabel("sat on, clean image", fontsize=9, color=canvas.INK)
  axes.set_xlabel("found on, attacked image", fontsize=9, color=canvas.INK)
  if title:
    axes.set_title(title, loc="left", fontsize=10, color=canvas.INK)
  bar = figure.colorbar(image, ax=axes, shrink=0.8)
  bar.set_label("share of the row", fontsize=8, color=canvas.INK)
  bar.ax.tick_params(labelsize=7.5)
  bar.outline.set_visible(False)
  return figure
