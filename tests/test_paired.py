"""Two shares of the same things: published figures, and a slow reference written plainly."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import optimize

from jprotop import statistics


@pytest.mark.parametrize(
  ("only_a", "only_b", "total", "interval", "p"),
  [
    # Airway hyper-responsiveness before and after a transplantation: Fagerland, Lydersen and Laake
    # (2014), BMC Medical Research Methodology 14; its tables of intervals and of exact p values.
    (1, 7, 21, (-0.517, -0.026), 0.0703),
    # Complete agreement: Tango (1998) gives z^2 / (N + z^2).
    (0, 0, 50, (-3.8415 / 53.8415, 3.8415 / 53.8415), 1.0),
  ],
)
def test_published_figures(only_a, only_b, total, interval, p):
  assert statistics.tango_interval(only_a, only_b, total) == pytest.approx(interval, abs=6e-4)
  assert statistics.mcnemar_p(only_a, only_b) == pytest.approx(p, abs=5e-5)


def slow_score(difference, only_a, only_b, total):
  """The score statistic, with the nuisance share found by maximising the likelihood."""

  def loss(share_b):
    shares = np.array([share_b + difference, share_b, 1 - 2 * share_b - difference])
    counts = np.array([only_a, only_b, total - only_a - only_b])
    return -np.sum(counts * np.log(np.maximum(shares, 1e-300)))

  low, high = max(0, -difference), (1 - difference) / 2
  share_b = optimize.minimize_scalar(
    loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
  ).x
  variance = (2 * share_b + difference - difference**2) / total
  return ((only_a - only_b) / total - difference) / np.sqrt(variance)


counts = st.tuples(*[st.integers(0, 60)] * 3).filter(lambda drawn: sum(drawn) > 0)


@settings(max_examples=40, deadline=None)
@given(counts)
@example((5, 0, 0))
@example((0, 3, 0))
@example((1, 0, 239))
def test_each_end_is_where_the_score_is_the_normal_quantile(drawn):
  only_a, only_b, _ = drawn
  total = sum(drawn)
  low, high = statistics.tango_interval(only_a, only_b, total)
  estimate = (only_a - only_b) / total
  assert -1 <= low <= estimate <= high <= 1
  for end, wanted in ((low, 1.959964), (high, -1.959964)):
    if -0.999 < end < 0.999:
      assert slow_score(end, only_a, only_b, total) == pytest.approx(wanted, rel=2e-3)
  mirrored = statistics.tango_interval(only_b, only_a, total)
  assert mirrored == pytest.approx((-high, -low), abs=1e-7)


def test_one_image_of_240_decides_nothing():
  """The percentile bootstrap's upper end is exactly 0 here: its interval touches."""
  low, high = statistics.tango_interval(0, 1, 240)
  assert low < 0 < high


def test_a_paired_difference_counts_what_only_one_has():
  a, b = [1, 1, 1, 0, 0, 1], [1, 0, 0, 0, 1, 1]
  found = statistics.paired_difference(a, b)
  assert (found["only_a"], found["only_b"], found["total"]) == (2, 1, 6)
  assert found["value"] == pytest.approx(1 / 6)
  assert found["interval"] == list(statistics.tango_interval(2, 1, 6))
  assert found["p"] == 1.0
  assert statistics.paired_difference([], []) == {
    "value": None,
    "total": 0,
    "only_a": 0,
    "only_b": 0,
    "interval": None,
    "p": None,
  }


def test_holm_by_hand():
  """0.01 x 4, 0.02 x 3, then 0.03 x 2 = 0.06 as 0.06, and 0.5; each at least the one before."""
  assert statistics.holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
  assert statistics.holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
  assert statistics.holm([]).size == 0
