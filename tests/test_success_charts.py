"""The charts of the success rate show the numbers that they are given."""

import numpy as np
import pytest

from jprotop import statistics
from jprotop.errors import InputError
from jprotop.report import canvas, success_charts


def rates(*counts, total=10):
  return {
    str(k): statistics.share([True] * c + [False] * (total - c)) for k, c in enumerate(counts, 1)
  }


def numbers(*counts):
  return {
    "num_images": 10, "top_k": len(counts), "rate_at": rates(*counts),
    "kept": {"rate_at": rates(*[count - 1 for count in counts])},
    "control": {"rate_at": rates(*[0] * len(counts))},
  }  # fmt: skip


def test_rates_by_k_with_their_controls():
  figure = success_charts.success_at_k({"paper": numbers(3, 6, 9), "authors": numbers(5, 5, 10)})
  axes = figure.axes[0]
  lines = [line for line in axes.get_lines() if line.get_marker() in "os"]
  shown = [np.round(line.get_ydata()).tolist() for line in lines]
  assert (
    [30, 60, 90] in shown
    and [20, 50, 80] in shown
    and [50, 50, 100] in shown
    and shown.count([0, 0, 0]) == 2
  )
  labels = [text.get_text() for text in figure.legends[0].get_texts()]
  assert labels[0] == "paper, class kept, n = 10" and "authors, random noise, n = 10" in labels
  canvas.png_bytes(figure)


def test_a_rate_of_no_image_is_not_drawn():
  nothing = {"num_images": 0, "top_k": 1, "rate_at": rates(0, total=0)}
  nothing["control"] = nothing["kept"] = {"rate_at": rates(0, total=0)}
  figure = success_charts.success_at_k({"authors": nothing})
  assert not figure.axes[0].get_lines()
  with pytest.raises(InputError, match="at least one"):
    success_charts.success_at_k({})


def test_the_matrix_of_parts():
  figure = success_charts.parts(["head", "stomach"], [[1, 3], [0, 0]], title="Paper")
  axes = figure.axes[0]
  assert [text.get_text() for text in axes.texts] == ["1", "3", "0", "0"]
  assert [t.get_text() for t in axes.get_yticklabels()] == ["head (4)", "stomach (0)"]
  assert [t.get_text() for t in axes.get_xticklabels()] == ["head (1)", "stomach (3)"]
  assert axes.images[0].get_array().tolist() == [[0.25, 0.75], [0, 0]]
  canvas.png_bytes(figure)
  with pytest.raises(InputError, match="2 groups"):
    success_charts.parts(["head", "stomach"], [[1, 2, 3]])
