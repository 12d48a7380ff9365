"""Charts of the field's metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from jprotop.metrics.consistency_score import THRESHOLD
from jprotop.report import canvas


def consistency(thresholds: Sequence[float], curve: Sequence[Mapping[str, Any]]) -> Figure:
  """Consistency over its threshold, with the 95% interval as a band and the published threshold.

  Args:
    curve: a share of prototypes for each threshold, as results.json holds them.
  """
  figure = Figure(figsize=(4.6, 2.9), layout="constrained", facecolor="white")
  axes = figure.subplots()
  canvas.style_axes(axes, title="Consistency", ylabel="consistent prototypes, %")
  values = [100 * point["value"] for point in curve]
  low, high = zip(*([100 * end for end in point["interval"]] for point in curve))
  axes.fill_between(thresholds, low, high, step=None, color=canvas.BLUE, alpha=0.18, linewidth=0)
  axes.plot(thresholds, values, color=canvas.BLUE, marker="o", markersize=3.5, linewidth=1.6)
  axes.axvline(THRESHOLD, color=canvas.GREY, linestyle="--", linewidth=1)
  axes.annotate(
    "published", (THRESHOLD, 1), xycoords=("data", "axes fraction"), xytext=(-4, -4),
    textcoords="offset points", ha="right", va="top", fontsize=8, color=canvas.GREY,
  )  # fmt: skip
  axes.set_xlabel("share of images on which one part must be hit", fontsize=9, color=canvas.INK)
  axes.set_xlim(0, 1.02)
  axes.set_ylim(-3, 103)
  return figure
