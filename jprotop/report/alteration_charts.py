"""Charts of what artefacts do: Figures 10 to 15, and how far similarities drop on average."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Real
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jprotop import statistics
from jprotop.errors import InputError
from jprotop.report import canvas
from jprotop.report.wording import ONE, interval_of

# One colour and one marker for a version of the image, in every panel.
_ALTERED = {"color": canvas.VERMILLION, "marker": "D"}
_CLEAN = {"color": canvas.BLUE, "marker": "o"}
_WAYS = {
  "similarity_drop": ("top prototype of the altered image", _ALTERED),
  "similarity_drop_reverse": ("top prototype of the original", _CLEAN),
}
_GROUPS = {
  "paper": "altered classes,\nclassified correctly",
  "altered_classes": "altered classes,\nall their images",
  "other_classes": "other classes\n(control)",
}


def top_similarities(
  altered: Real[np.ndarray, "..."],
  clean: Real[np.ndarray, "..."],
  *,
  count: int = 75,
  title: str = "",
) -> Figure:
  """Figures 10 to 15: the highest similarities of one image, and the same prototypes' without, or
  with, the artefacts.

  Left, the prototypes that are most similar to the altered image; right, to the original.

  Args:
    altered, clean: activations [P] of the two versions.
    count: how many prototypes a panel shows; all, if there are fewer.
  """
  altered, clean = np.asarray(altered), np.asarray(clean)
  if altered.ndim != 1 or altered.shape != clean.shape:
    raise InputError(
      f"altered is {altered.shape}, clean {clean.shape}; give two vectors [P] of activations"
    )
  figure = Figure(figsize=(9.0, 3.6), layout="constrained", facecolor="white")
  panels = figure.subplots(1, 2, sharey=True)
  count = min(count, len(clean))
  left = f"The {count} highest in the altered image"
  right = f"The {count} highest in the original"
  bars = _bars_and_marks(panels[0], altered, clean, count, left, _ALTERED, _CLEAN)
  other = _bars_and_marks(panels[1], clean, altered, count, right, _CLEAN, _ALTERED)
  panels[0].set_ylabel("similarity", fontsize=9, color=canvas.INK)
  figure.legend(
    [bars[0], other[1], other[0], bars[1]],
    [f"{image}{place}" for image in ("altered", "original")
     for place in (", ranked", ", same prototype")],
    loc="outside lower center", ncols=4, fontsize=8, frameon=False,
  )  # fmt: skip
  if title:
    figure.suptitle(title, fontsize=10, fontweight="bold", x=0.01, ha="left", color=canvas.INK)
  return figure


def _bars_and_marks(
  axes: Axes,
  ranked: Real[np.ndarray, " P"],
  other: Real[np.ndarray, " P"],
  count: int,
  title: str,
  look: dict,
  mark: dict,
) -> tuple:
  """Bars of the highest `ranked` similarities, and marks for the same prototypes of `other`."""
  shown = statistics.top_columns(ranked[None], count)[0]
  places = np.arange(1, count + 1)
  canvas.style_axes(axes, title=title)
  bars = axes.bar(places, ranked[shown], width=0.8, color=look["color"], alpha=0.35, linewidth=0)
  size = 5 if count <= 30 else 3
  style: dict[str, Any] = {"linestyle": "none", "markersize": size, "zorder": 3, **mark}
  (marks,) = axes.plot(places, other[shown], **style)
  axes.set_xlabel("rank of the prototype", fontsize=9, color=canvas.INK)
  axes.set_xlim(0.2, count + 0.8)
  axes.set_xticks(sorted({1, *range(10, count + 1, 10)} if count > 12 else places))
  return bars, marks


def similarity_drop(drift: Mapping[str, Mapping[str, Any]]) -> Figure:
  """Mean drop of the most activated prototype's similarity, both ways, with its 95% interval.

  Args:
    drift: by group of images, the numbers of `jprotop.experiments.alteration_numbers.drift`.
  """
  groups = [name for name in _GROUPS if name in drift]
  if not groups:
    raise InputError(f"drift holds none of {', '.join(_GROUPS)}; give the numbers by group")
  figure = Figure(figsize=(7.2, 0.9 + 0.75 * len(groups)), layout="constrained", facecolor="white")
  axes = figure.subplots()
  for offset, (key, (label, look)) in zip((-0.13, 0.13), _WAYS.items()):
    _means(axes, [drift[name][key] for name in groups], offset, label, look)
  axes.axvline(0, color=canvas.GREY, linewidth=1, zorder=0)
  names = [f"{_GROUPS[name]}, n = {drift[name]['num_images']}" for name in groups]
  axes.set_yticks(range(len(groups)), names, fontsize=8.5)
  axes.set_ylim(len(groups) - 0.5, -0.5)
  canvas.style_axes(axes)
  axes.grid(axis="x", color=canvas.FAINT, linewidth=0.7)
  axes.grid(visible=False, axis="y")
  unit = "mean drop of similarity in the other version of the image, with 95% interval"
  axes.set_xlabel(unit, fontsize=9, color=canvas.INK)
  axes.margins(x=0.12)
  figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
  return figure


def _means(axes: Axes, means: list[Mapping], offset: float, label: str, look: dict) -> None:
  """A row each: the mean with its interval, and its value; nothing where there was no image."""
  rows = [i for i, mean in enumerate(means) if mean["value"] is not None]
  values = np.array([means[i]["value"] for i in rows])
  known = [interval_of(means[i]) for i in rows]
  ends = np.array([end or (value, value) for end, value in zip(known, values)]).reshape(-1, 2)
  style = {"fmt": look["marker"], "color": look["color"], "markersize": 6, "capsize": 4}
  bars = np.where([end is not None for end in known], np.abs(ends.T - values), np.nan)
  axes.errorbar(values, np.array(rows) + offset, xerr=bars, label=label, **style)
  for i, value, end, interval in zip(rows, values, ends[:, 1], known):
    said = f"{value:.2f}" if interval else f"{value:.2f} ({ONE})"
    axes.annotate(said, (end, i + offset), (7, 0), textcoords="offset points",
                  va="center", fontsize=8, color=canvas.INK)  # fmt: skip
