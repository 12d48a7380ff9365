"""Where images of twins go, with and without artefacts: a bar for each kind of twin and version."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from jprotop.report import canvas

_BARS = (
  ("altered_twins", "altered", "altered twins,\nas in training"),
  ("altered_twins", "clean", "altered twins,\nwithout artefacts"),
  ("clean_twins", "clean", "clean twins,\nas in training"),
  ("clean_twins", "altered", "clean twins,\nwith artefacts"),
)
_PARTS = (("right twin", canvas.BLUE), ("other twin", canvas.ORANGE), ("another pair", canvas.GREY))


def predictions(record: Mapping[str, Any]) -> Figure:
  """Shares of images that go into the right twin, the other twin, and another pair.

  Args:
    record: the `twins` record of a network.
  """
  figure = Figure(figsize=(6.6, 2.8), layout="constrained", facecolor="white")
  axes = figure.subplots()
  for row, (side, version, _) in enumerate(_BARS):
    found = record[side][version]
    total = found["right_pair"]["total"]
    counts = [found[name]["count"] for name in ("right_twin", "other_twin")]
    counts.append(total - sum(counts))
    start = 0.0
    for (_, color), count in zip(_PARTS, counts):
      width = 100 * count / max(total, 1)
      axes.barh(row, width, left=start, height=0.66, color=color)
      if width > 6:
        axes.text(start + width / 2, row, str(count), ha="center", va="center", fontsize=8.5,
                  color="white" if color != canvas.ORANGE else canvas.INK)  # fmt: skip
      start += width
  canvas.style_axes(axes)
  axes.grid(visible=False)
  axes.set_yticks(range(len(_BARS)), [label for *_, label in _BARS], fontsize=8.5)
  axes.invert_yaxis()
  axes.set(xlim=(0, 100))
  axes.set_xlabel("test images, %, by what they are taken for", fontsize=9, color=canvas.INK)
  for label, color in _PARTS:
    axes.barh([0], [0], color=color, label=label)
  figure.legend(loc="outside lower center", ncols=3, fontsize=8.5, frameon=False)
  return figure
