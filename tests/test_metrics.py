"""Shares and means with intervals that textbooks state."""

import numpy as np
import pytest

from jprotop import metrics


@pytest.mark.parametrize(
  ("count", "total", "wanted"),
  [
    # Newcombe (1998), Statistics in Medicine 17, Table I, method 3 (Wilson, no correction).
    (81, 263, (0.2553, 0.3662)),
    (15, 148, (0.0624, 0.1605)),
    (0, 20, (0.0, 0.1611)),
    (1, 29, (0.0061, 0.1718)),
  ],
)
def test_wilson_interval_matches_newcombes_table(count, total, wanted):
  assert metrics.wilson_interval(count, total) == pytest.approx(wanted, abs=6e-5)
  mirrored = metrics.wilson_interval(total - count, total)
  assert mirrored == pytest.approx((1 - wanted[1], 1 - wanted[0]), abs=6e-5)


def test_share_and_mean_carry_their_counts_and_intervals():
  share = metrics.share([True, False, True, True])
  assert (share["value"], share["count"], share["total"]) == (0.75, 3, 4)
  assert share["interval"] == pytest.approx(metrics.wilson_interval(3, 4))
  mean = metrics.mean([1.0, 2.0, 6.0])
  assert (mean["value"], mean["total"]) == (3.0, 3)
  assert 1 <= mean["interval"][0] < 3 < mean["interval"][1] <= 6
  assert metrics.share([]) == {"value": None, "count": 0, "total": 0, "interval": None}
  assert metrics.mean([]) == {"value": None, "total": 0, "interval": None}


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says():
  rng = np.random.default_rng(0)
  intervals = [metrics.bootstrap_interval(rng.normal(5, 2, 60), resamples=300) for _ in range(200)]
  covered = np.mean([low <= 5 <= high for low, high in intervals])
  assert 0.88 <= covered <= 0.99


def _slow_ranks(row):
  """1 + how many are smaller, and half of the others that are equal."""
  return [sum(v < w for v in row) + (sum(v == w for v in row) + 1) / 2 for w in row]


def test_ranks_give_equal_values_their_mean_rank():
  assert metrics.ranks(np.array([[10.0, 30.0, 20.0, 20.0]])).tolist() == [[1, 4, 2.5, 2.5]]
  values = np.random.default_rng(0).integers(0, 5, (8, 11))
  assert metrics.ranks(values).tolist() == [_slow_ranks(row) for row in values.tolist()]


def test_rank_correlation_is_spearmans():
  # Without ties it is 1 - 6 sum d^2 / (n (n^2 - 1)).
  a, b = np.random.default_rng(1).permuted(np.tile(np.arange(9), (2, 6, 1)), axis=2)
  formula = 1 - 6 * ((a - b) ** 2).sum(axis=1) / (9 * 80)
  np.testing.assert_allclose(metrics.rank_correlation(a, b), formula)
  tied = np.random.default_rng(2).integers(0, 4, (2, 6, 11))
  slow = [np.corrcoef(_slow_ranks(x), _slow_ranks(y))[0, 1] for x, y in zip(*tied.tolist())]
  np.testing.assert_allclose(metrics.rank_correlation(*tied), slow)


def test_rank_correlation_sees_only_the_order_and_not_constants():
  values = np.random.default_rng(3).random((4, 7))
  np.testing.assert_allclose(metrics.rank_correlation(values, np.exp(3 * values)), 1)
  np.testing.assert_allclose(metrics.rank_correlation(values, -values), -1)
  assert np.isnan(metrics.rank_correlation(values, np.ones((4, 7)))).all()
  assert np.isnan(metrics.rank_correlation(np.ones((1, 1)), np.ones((1, 1)))).all()


def test_the_highest_columns_come_in_order_and_the_first_of_equals_first():
  values = np.array([[1.0, 3.0, 3.0, 2.0]])
  assert metrics.highest(values, 3).tolist() == [[1, 2, 3]]
  assert metrics.highest(values, 9).tolist() == [[1, 2, 3, 0]]


@pytest.mark.parametrize("k", [1, 5, 20])
def test_top_k_overlap_is_the_share_of_common_members(k):
  a, b = np.random.default_rng(4).integers(0, 6, (2, 10, 12))
  top = lambda row: set(sorted(range(12), key=lambda p: (-row[p], p))[:k])  # noqa: E731
  slow = [len(top(x) & top(y)) / min(k, 12) for x, y in zip(a, b)]
  np.testing.assert_allclose(metrics.top_k_overlap(a, b, k=k), slow)


def _estimate(count, total):
  return metrics.share(np.arange(total) < count)


def test_difference_interval_matches_newcombes_examples():
  # Newcombe (1998), Statistics in Medicine 17, 873-890, Table II, method 10.
  for a, b, wanted in [
    ((56, 70), (48, 80), (0.0524, 0.3339)),
    ((9, 10), (3, 10), (0.1705, 0.8090)),
    ((10, 10), (0, 10), (0.6075, 1.0)),
  ]:
    found = metrics.difference_interval(_estimate(*a), _estimate(*b))
    assert found == pytest.approx(wanted, abs=6e-5)


def test_difference_interval_scales_the_second_estimate_and_turns_around():
  a, b = _estimate(56, 70), _estimate(48, 80)
  half = {"value": b["value"] / 2, "interval": [end / 2 for end in b["interval"]]}
  assert metrics.difference_interval(a, b, factor=0.5) == pytest.approx(
    metrics.difference_interval(a, half)
  )
  low, high = metrics.difference_interval(a, b)
  assert metrics.difference_interval(b, a) == pytest.approx((-high, -low))
  negative = {"value": -b["value"], "interval": [-end for end in b["interval"][::-1]]}
  assert metrics.difference_interval(a, negative, factor=-1) == pytest.approx((low, high))
  assert metrics.difference_interval(a, metrics.share([])) is None
