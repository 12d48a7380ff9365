"""Plots of numbers: training, confusion, and how an attack shifts similarities."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer, Real
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jprotop import statistics
from jprotop.errors import InputError
from jprotop.report import canvas
from jprotop.report.wording import ONE, interval_of

_ACCURACY = {
  ("train", "accuracy"): ("training images", canvas.BLUE, "-", "o"),
  ("validation", "accuracy"): ("validation images", canvas.VERMILLION, "-", "s"),
  ("test", "accuracy"): ("test images", canvas.GREEN, "-", "D"),
  ("validation", "fgsm_accuracy"): ("validation, under FGSM", canvas.ORANGE, "--", "^"),
  ("validation", "pgd_accuracy"): ("validation, under PGD", canvas.PLUM, "--", "v"),
}
_LOSS = {
  ("train", "loss"): ("loss (the weighted sum)", canvas.INK, "-", "o"),
  ("train", "cross_entropy"): ("cross entropy", canvas.BLUE, "--", "s"),
}
_COST = {
  ("train", "cluster_cost"): ("cluster cost (lower is better)", canvas.GREEN, "-", "^"),
  ("train", "separation_cost"): ("separation cost (higher is better)", canvas.ORANGE, "--", "v"),
}


def training_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
  """Accuracies, losses and prototype costs over the epochs of a run, its phases as bands.

  history holds the rows of the training log, {"phase", "epoch", "split", column: value, ...};
  rows without a split, as the push writes, are marks. Missing columns are left out, and a panel
  without any column is dropped.
  """
  groups = [
    ("Accuracy", "correct, %", _ACCURACY, 100.0),
    ("Loss", "training loss", _LOSS, 1.0),
    ("Squared distance to the nearest prototype", "cost", _COST, 1.0),
  ]
  drawn = [group for group in groups if any(_series(history, *key)[0].size for key in group[2])]
  if not drawn:
    raise InputError("the history holds no accuracy and no loss; give the rows of a training log")
  figure = Figure(figsize=(7.2, 0.7 + 2.1 * len(drawn)), layout="constrained", facecolor="white")
  panels = figure.subplots(len(drawn), 1, sharex=True, squeeze=False)[:, 0]
  for axes, (title, unit, lines, factor) in zip(panels, drawn):
    canvas.style_axes(axes, ylabel=unit)
    axes.set_title(title, loc="left", fontsize=10, color=canvas.INK, pad=18)
    _draw_lines(axes, history, lines, factor)
    _draw_phases(axes, history)
    if title == "Accuracy":
      _mark_parted(axes, history)
  if drawn[0][0] == "Accuracy":
    panels[0].set_ylim(-3, 103)
  panels[-1].set_xlabel("epoch, counted over the whole run", fontsize=9, color=canvas.INK)
  panels[-1].xaxis.get_major_locator().set_params(integer=True)
  return figure


def _series(history: Sequence[Mapping[str, Any]], split: str, column: str) -> tuple:
  """The epochs and values of one column of one split, in the order of the epochs."""
  points = [
    (row["epoch"], row[column]["value"] if isinstance(row[column], Mapping) else row[column])
    for row in history
    if row.get("split") == split and row.get(column) is not None
  ]
  points.sort(key=lambda point: point[0])
  return tuple(np.array(points, np.float64).reshape(-1, 2).T)


def _draw_lines(axes: Axes, history: Sequence, lines: Mapping, factor: float) -> None:
  for key, (label, color, dash, marker) in lines.items():
    epochs, values = _series(history, *key)
    if epochs.size:
      style = {"color": color, "linestyle": dash, "linewidth": 1.6, "label": label}
      size = 4 if epochs.size <= 40 else 0
      axes.plot(epochs, factor * values, marker=marker, markersize=size, **style)
  axes.legend(fontsize=8, frameon=False, loc="best")


def _mark_parted(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
  """A cross above each epoch in which FGSM and PGD part (`training.overfitting`)."""
  epochs = [row["epoch"] for row in history if row.get("parted")]
  if epochs:
    axes.plot(
      epochs,
      np.full(len(epochs), 100.0),
      marker="X",
      linestyle="",
      color=canvas.VERMILLION,
      markersize=7,
      label="catastrophic overfitting",
      zorder=4,
    )
    axes.legend(fontsize=8, frameon=False, loc="best")


def _phase_spans(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, int]]:
  """(phase, first epoch, last epoch) of every run of epochs in one phase, the push left out."""
  phases = {r["epoch"]: r["phase"] for r in history if "phase" in r and r["phase"] != "push"}
  spans: list[tuple[str, int, int]] = []
  for epoch, phase in sorted(phases.items()):
    if spans and spans[-1][0] == phase:
      spans[-1] = (phase, spans[-1][1], epoch)
    else:
      spans.append((phase, epoch, epoch))
  return spans


def _draw_phases(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
  """A band a phase with its name above the panel; a dotted line where prototypes were pushed."""
  spans = _phase_spans(history)
  trained = {r["epoch"] for r in history if r.get("phase") != "push"}
  text = {"transform": axes.get_xaxis_transform(), "fontsize": 8, "ha": "center", "va": "bottom"}
  for index, (phase, first, last) in enumerate(spans):
    axes.axvspan(first - 0.5, last + 0.5, color=canvas.BANDS[index % 2], zorder=-2, linewidth=0)
    axes.text((first + last) / 2, 1.01, phase.replace("_", " "), color=canvas.GREY, **text)
  pushes = {r["epoch"]: r for r in history if r.get("phase") == "push" and "split" not in r}
  for epoch in pushes:
    # A push that shares its number with a trained epoch comes after it.
    place = epoch + 0.5 if epoch in trained else epoch
    axes.axvline(place, color=canvas.PLUM, linestyle=":", linewidth=1.6)
    axes.text(place, 1.01, "push", color=canvas.PLUM, **text)
  ends = [span[1] - 0.5 for span in spans] + [span[2] + 0.5 for span in spans] + list(pushes)
  axes.set_xlim(min(ends), max(ends))


def confusion(matrix: Integer[np.ndarray, "_ _"], class_names: Sequence[str]) -> Figure:
  """Counts [C, C], a row a true class, a column a predicted one; colour is the share of the row.

  Up to 20 classes the counts are printed; beyond 40 only every so many classes are named.
  """
  matrix = np.asarray(matrix)
  if matrix.shape != (len(class_names), len(class_names)):
    raise InputError(f"matrix is {matrix.shape}, but there are {len(class_names)} class names")
  num_classes = len(class_names)
  rows = matrix.sum(1, keepdims=True)
  share = np.divide(matrix, rows, out=np.zeros(matrix.shape), where=rows > 0)
  side = 7.5 if num_classes > 20 else 2.6 + 0.42 * num_classes
  figure = Figure(figsize=(side + 0.6, side), layout="constrained", facecolor="white")
  axes = figure.subplots()
  image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
  every = math.ceil(num_classes / 40)
  ticks = range(0, num_classes, every)
  labels = [canvas.class_label(class_names[i]) for i in ticks]
  axes.set_xticks(ticks, labels, rotation=90, fontsize=8 if num_classes <= 20 else 6)
  axes.set_yticks(ticks, labels, fontsize=8 if num_classes <= 20 else 6)
  axes.set_xlabel("predicted class", fontsize=9)
  axes.set_ylabel("true class", fontsize=9)
  if num_classes <= 20:
    for (y, x), count in np.ndenumerate(matrix):
      color = "white" if share[y, x] > 0.55 else canvas.INK if count else canvas.FAINT
      axes.text(x, y, f"{count:d}", ha="center", va="center", fontsize=8, color=color)
  bar = figure.colorbar(image, ax=axes, shrink=0.7)
  bar.set_label("share of the true class's images", fontsize=8)
  bar.ax.tick_params(labelsize=7.5)
  bar.outline.set_visible(False)
  return figure


def similarity_shift(
  before: Mapping[str, Sequence[float] | Real[np.ndarray, " _"]],
  after: Mapping[str, Sequence[float] | Real[np.ndarray, " _"]],
  *,
  clean_maximum: Sequence[float] | Real[np.ndarray, " _"] | None = None,
  intervals: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
  """The prototype's similarity at S and at S_noisy, before and after the attack, a line an image.

  before and after hold "source" (S) and "target" (S_noisy), [N] each; clean_maximum [N] is the
  prototype's score on the clean images, drawn as its mean. Means carry their 95% interval: that of
  intervals, keyed "source_before" and so on, else the bootstrap interval of the tables.
  """
  arrays = {
    f"{place}_{time}": np.asarray(values[place], np.float64)
    for time, values in (("before", before), ("after", after))
    for place in ("source", "target")
  }
  sizes = {name: array.shape for name, array in arrays.items()}
  if len(set(sizes.values())) != 1 or arrays["source_before"].ndim != 1:
    raise InputError(f"every image needs its four similarities, as vectors [N]; given {sizes}")
  figure = Figure(figsize=(6.4, 3.8), layout="constrained", facecolor="white")
  panels = figure.subplots(1, 2, sharey=True)
  heads = ("At S: where it was found", "At S_noisy: where noise was added")
  for axes, place, title, color in zip(
    panels, ("source", "target"), heads, (canvas.BLUE, canvas.VERMILLION)
  ):
    canvas.style_axes(axes, title=title)
    pair = np.stack([arrays[f"{place}_before"], arrays[f"{place}_after"]])
    ends = [(intervals or {}).get(f"{place}_{time}") for time in ("before", "after")]
    _draw_shift(axes, pair, ends, color)
    if clean_maximum is not None and np.size(clean_maximum):
      label = "mean maximum, clean"
      axes.axhline(np.mean(clean_maximum), color=canvas.GREY, dashes=(4, 3), lw=1.2, label=label)
    axes.set(xlim=(-0.35, 1.35))
    axes.set_xticks([0, 1], ["before", "after"], fontsize=9)
  panels[0].set_ylabel("similarity to the prototype", fontsize=9)
  handles, labels = panels[1].get_legend_handles_labels()
  figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
  return figure


def _draw_shift(axes: Axes, pair: Real[np.ndarray, "2 N"], ends: Sequence, color: str) -> None:
  """A thin line an image, and the two means with their intervals beside them."""
  num_images = pair.shape[1]
  if not num_images:
    return
  faint = {"color": color, "alpha": max(0.12, min(0.5, 12 / num_images)), "linewidth": 1}
  axes.plot([0, 1], pair, marker="o", markersize=3, zorder=2, **faint)
  for x, values, interval in zip((-0.17, 1.17), pair, ends):
    mean = values.mean()
    known = interval or interval_of(statistics.mean(values))
    low, high = known or (mean, mean)
    bar = [[max(0.0, mean - low)], [max(0.0, high - mean)]]
    look = {"fmt": "D", "color": canvas.INK, "markersize": 5, "capsize": 4, "linewidth": 1.6}
    label = "mean, 95% interval" if known else f"mean ({ONE})"
    axes.errorbar(x, mean, yerr=bar if known else None, label=label if x < 0 else None, **look)
    axes.annotate(f"{mean:.2f}", (x, high), (0, 5), textcoords="offset points", ha="center",
                  va="bottom", fontsize=8.5, fontweight="bold", color=canvas.INK)  # fmt: skip
  axes.plot([], [], color=canvas.GREY, marker="o", markersize=3, label="one image")
