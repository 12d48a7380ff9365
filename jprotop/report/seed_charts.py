"""Charts of what several seeds gave: every study's value, and the mean over them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from jprotop.errors import InputError
from jprotop.report import canvas

_LOOKS = ((canvas.BLUE, "o"), (canvas.VERMILLION, "D"), (canvas.GREEN, "s"), (canvas.PLUM, "^"))
_ROW, _SERIES = 0.12, 0.18  # inches


class Series(NamedTuple):
  """A share in several studies.

  Attributes:
    label: what varies among them.
    values: of each study that has it.
    over: their mean and its interval, as `experiments.over_seeds.mean_over` returns them.
  """

  label: str
  values: Sequence[float]
  over: Mapping[str, Any]


def spread(shares: Mapping[str, Sequence[Series]], *, title: str = "") -> Figure:
  """A line of dots for each share and factor: one for each study, and a bar for the interval.

  Args:
    shares: the series of each share, by its name.
  """
  if not any(shares.values()):
    raise InputError("no share was measured in several studies; collect at least two")
  labels = list(dict.fromkeys(series.label for group in shares.values() for series in group))
  looks = {label: _LOOKS[i % len(_LOOKS)] for i, label in enumerate(labels)}
  lines = sum(len(group) for group in shares.values())
  height = 0.9 + _ROW * len(shares) + _SERIES * lines + 0.22 * len(labels)
  figure = Figure(figsize=(5.0, height), layout="constrained", facecolor="white")
  axes = figure.subplots()
  place, ticks = 0.0, []
  for number, group in enumerate(shares.values()):
    axes.axhspan(place - 0.8, place + len(group) - 0.2, color=canvas.BANDS[number % 2], zorder=0)
    ticks.append(place + (len(group) - 1) / 2)
    for series in group:
      _draw(axes, place, series, *looks[series.label])
      place += 1
    place += 0.6
  canvas.style_axes(axes, title=title)
  axes.grid(axis="y", visible=False)
  axes.grid(axis="x", color=canvas.FAINT, linewidth=0.7)
  axes.set_yticks(ticks, [canvas.plain(name) for name in shares], fontsize=9)
  axes.tick_params(axis="y", length=0)
  axes.set(ylim=(place - 0.6 - 0.2, -0.8), xlim=(-2, 102))
  axes.set_xlabel("test images, %", fontsize=9, color=canvas.INK)
  handles, names = axes.get_legend_handles_labels()
  found = dict(zip(names, handles))
  figure.legend(found.values(), found, loc="outside lower left", ncols=1, fontsize=8, frameon=False)
  return figure


def _draw(axes: Any, place: float, series: Series, color: str, marker: str) -> None:
  interval = series.over["interval"]
  if interval is not None:
    low, high = (100 * end for end in interval)
    axes.plot([low, high], [place, place], color=color, linewidth=5, alpha=0.25)
  mean = 100 * series.over["value"]
  axes.plot([mean, mean], [place - 0.28, place + 0.28], color=color, linewidth=2)
  dots = [100 * value for value in series.values]
  axes.plot(
    dots, [place] * len(dots), marker, color=color, markersize=4.5, markeredgecolor="white",
    markeredgewidth=0.5, label=canvas.plain(series.label, max_length=90), zorder=3,
  )  # fmt: skip
