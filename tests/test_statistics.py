"""Shares and means with intervals that textbooks state."""

import tracemalloc
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jprotop import statistics


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
  assert statistics.wilson_interval(count, total) == pytest.approx(wanted, abs=6e-5)
  mirrored = statistics.wilson_interval(total - count, total)
  assert mirrored == pytest.approx((1 - wanted[1], 1 - wanted[0]), abs=6e-5)


def _slow_wilson(count, total, confidence):
  z = NormalDist().inv_cdf(0.5 + confidence / 2)
  share = count / total
  centre = (share + z * z / (2 * total)) / (1 + z * z / total)
  half = (z / (1 + z * z / total)) * np.sqrt(share * (1 - share) / total + z * z / (4 * total**2))
  return (centre - half, centre + half)


@settings(deadline=None)
@given(
  counts=st.tuples(st.integers(0, 10**6), st.integers(1, 10**6)).map(sorted),
  confidence=st.sampled_from([0.5, 0.9, 0.95, 0.999]),
)
@example(counts=[0, 1], confidence=0.95)
@example(counts=[7, 7], confidence=0.95)
@example(counts=[10**9, 3 * 10**9], confidence=0.95)
def test_wilson_interval_is_its_formula(counts, confidence):
  low, high = found = statistics.wilson_interval(*counts, confidence)
  np.testing.assert_allclose(found, _slow_wilson(*counts, confidence), rtol=0, atol=1e-12)
  assert (type(low), type(high)) == (float, float)
  # Exactly so at the ends, and only there.
  assert (low == 0) == (counts[0] == 0)
  assert (high == 1) == (counts[0] == counts[1])


def test_of_nothing_every_share_is_possible():
  assert statistics.wilson_interval(0, 0) == (0.0, 1.0)


def test_share_and_mean_carry_their_counts_and_intervals():
  share = statistics.share([True, False, True, True])
  assert (share["value"], share["count"], share["total"]) == (0.75, 3, 4)
  assert share["interval"] == pytest.approx(statistics.wilson_interval(3, 4))
  mean = statistics.mean([1.0, 2.0, 6.0])
  assert (mean["value"], mean["total"]) == (3.0, 3)
  assert 1 <= mean["interval"][0] < 3 < mean["interval"][1] <= 6
  assert statistics.share([]) == {"value": None, "count": 0, "total": 0, "interval": None}
  assert statistics.mean([]) == {"value": None, "total": 0, "interval": None}


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says():
  rng = np.random.default_rng(0)
  intervals = [
    statistics.bootstrap_interval(rng.normal(5, 2, 60), resamples=300) for _ in range(200)
  ]
  covered = np.mean([low <= 5 <= high for low, high in intervals])
  assert 0.88 <= covered <= 0.99


def _slow_bootstrap(values, confidence=0.95, *, resamples=2000, seed=0):
  """One resample after the other."""
  rng = np.random.default_rng(seed)
  means = [values[rng.integers(0, values.size, values.size)].mean() for _ in range(resamples)]
  tail = (1 - confidence) / 2
  return tuple(np.quantile(means, [tail, 1 - tail]))


@settings(deadline=None, max_examples=60)
@given(
  values=st.lists(st.floats(-1000, 1000), min_size=1, max_size=40),
  confidence=st.sampled_from([0.5, 0.9, 0.95]),
  resamples=st.integers(50, 300),
  seed=st.integers(0, 2**32),
)
def test_bootstrap_draws_and_counts_as_the_plain_one(values, confidence, resamples, seed):
  options = {"resamples": resamples, "seed": seed}
  found = statistics.bootstrap_interval(values, confidence, **options)
  wanted = _slow_bootstrap(np.array(values), confidence, **options)
  np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)
  assert [type(end) for end in found] == [float, float]


# The last ones are drawn in several batches.
@pytest.mark.parametrize("size", [2, 3, 200, 5794])
def test_bootstrap_is_the_plain_one_whatever_the_number_of_values(size):
  for values in (np.random.default_rng(size).normal(size=size), np.arange(size) % 2.0):
    found = statistics.bootstrap_interval(values)
    np.testing.assert_allclose(found, _slow_bootstrap(values), rtol=0, atol=1e-12)


@pytest.mark.parametrize("values", [[0.1], [0.1] * 3, [0.1] * 7, [-1e300] * 2])
def test_bootstrap_of_equal_values_has_no_width(values):
  low, high = statistics.bootstrap_interval(values)
  assert low == high == _slow_bootstrap(np.array(values))[0]


@pytest.mark.parametrize("values", [[], [np.nan], [1, np.nan], [1, np.inf], [np.inf, np.inf]])
def test_bootstrap_of_nothing_or_of_what_is_no_number_is_nan(values):
  assert np.isnan(statistics.bootstrap_interval(values)).tolist() == [True, True]


@given(seed=st.integers(0, 2**32), size=st.integers(2, 30))
@settings(deadline=None, max_examples=20)
def test_a_weight_goes_with_its_value_wherever_it_is_drawn(seed, size):
  rng = np.random.default_rng(seed)
  values, weights = rng.normal(size=size), rng.uniform(0.1, 3, size)
  drawn = np.random.default_rng(5).integers(0, size, (300, size))
  means = [(values[i] * weights[i]).sum() / weights[i].sum() for i in drawn]
  found = statistics.bootstrap_interval(values, resamples=300, seed=5, weights=weights)
  np.testing.assert_allclose(found, np.quantile(means, [0.025, 0.975]), atol=1e-9)
  mean = statistics.mean(values, weights)
  assert mean["value"] == pytest.approx(np.average(values, weights=weights))
  equal = statistics.bootstrap_interval(values, resamples=300, weights=np.full(size, 2.0))
  np.testing.assert_allclose(equal, statistics.bootstrap_interval(values, resamples=300))


def test_bootstrap_of_many_values_takes_little_memory():
  values = np.arange(100_000.0)
  tracemalloc.start()
  statistics.bootstrap_interval(values, resamples=20)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 10 * values.nbytes  # All resamples at once would be 40 times, with their places.


def _slow_ranks(row):
  """1 + how many are smaller, and half of the others that are equal."""
  return [sum(v < w for v in row) + (sum(v == w for v in row) + 1) / 2 for w in row]


def test_ranks_give_equal_values_their_mean_rank():
  assert statistics.ranks(np.array([[10.0, 30.0, 20.0, 20.0]])).tolist() == [[1, 4, 2.5, 2.5]]
  values = np.random.default_rng(0).integers(0, 5, (8, 11))
  assert statistics.ranks(values).tolist() == [_slow_ranks(row) for row in values.tolist()]


def test_rank_correlation_is_spearmans():
  # Without ties it is 1 - 6 sum d^2 / (n (n^2 - 1)).
  a, b = np.random.default_rng(1).permuted(np.tile(np.arange(9), (2, 6, 1)), axis=2)
  formula = 1 - 6 * ((a - b) ** 2).sum(axis=1) / (9 * 80)
  np.testing.assert_allclose(statistics.rank_correlation(a, b), formula)
  tied = np.random.default_rng(2).integers(0, 4, (2, 6, 11))
  slow = [np.corrcoef(_slow_ranks(x), _slow_ranks(y))[0, 1] for x, y in zip(*tied.tolist())]
  np.testing.assert_allclose(statistics.rank_correlation(*tied), slow)


def _former_rank_correlation(a, b):
  x, y = (np.array([_slow_ranks(row) for row in rows]) for rows in (a, b))
  x, y = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (x, y))
  product, size = (x * y).sum(axis=1), np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
  return np.divide(product, size, out=np.full(len(size), np.nan), where=size > 0)


@settings(deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(1, 7))
def test_rank_correlation_has_its_own_result_for_every_row(data, rows, columns):
  values = st.lists(st.integers(0, 3), min_size=rows * columns, max_size=rows * columns)
  a, b = (np.array(data.draw(values), np.float32).reshape(rows, columns) for _ in range(2))
  found = statistics.rank_correlation(a, b)
  np.testing.assert_allclose(found, _former_rank_correlation(a, b), rtol=0, atol=1e-12)


def test_rank_correlation_of_no_rows_is_empty_and_of_a_nan_is_nan():
  assert statistics.rank_correlation(np.empty((0, 3)), np.empty((0, 3))).shape == (0,)
  values = np.array([[1, 2, 3], [1, np.nan, 3], [np.inf] * 3, [1, 2, np.inf]])
  found = statistics.rank_correlation(values, values[[0] * 4])
  np.testing.assert_allclose(found, [1, np.nan, np.nan, 1])


def test_rank_correlation_sees_only_the_order_and_not_constants():
  values = np.random.default_rng(3).random((4, 7))
  np.testing.assert_allclose(statistics.rank_correlation(values, np.exp(3 * values)), 1)
  np.testing.assert_allclose(statistics.rank_correlation(values, -values), -1)
  assert np.isnan(statistics.rank_correlation(values, np.ones((4, 7)))).all()
  assert np.isnan(statistics.rank_correlation(np.ones((1, 1)), np.ones((1, 1)))).all()


def test_the_highest_columns_come_in_order_and_the_first_of_equals_first():
  values = np.array([[1.0, 3.0, 3.0, 2.0]])
  assert statistics.top_columns(values, 3).tolist() == [[1, 2, 3]]
  assert statistics.top_columns(values, 9).tolist() == [[1, 2, 3, 0]]


@pytest.mark.parametrize("k", [1, 5, 20])
def test_top_k_overlap_is_the_share_of_common_members(k):
  a, b = np.random.default_rng(4).integers(0, 6, (2, 10, 12))

  def top(row):
    return set(sorted(range(12), key=lambda p: (-row[p], p))[:k])

  slow = [len(top(x) & top(y)) / min(k, 12) for x, y in zip(a, b)]
  np.testing.assert_allclose(statistics.top_k_overlap(a, b, k=k), slow)


def _estimate(count, total):
  return statistics.share(np.arange(total) < count)


def test_difference_interval_matches_newcombes_examples():
  # Newcombe (1998), Statistics in Medicine 17, 873-890, Table II, method 10.
  for a, b, wanted in [
    ((56, 70), (48, 80), (0.0524, 0.3339)),
    ((9, 10), (3, 10), (0.1705, 0.8090)),
    ((10, 10), (0, 10), (0.6075, 1.0)),
  ]:
    found = statistics.difference_interval(_estimate(*a), _estimate(*b))
    assert found == pytest.approx(wanted, abs=6e-5)


def test_difference_interval_scales_the_second_estimate_and_turns_around():
  a, b = _estimate(56, 70), _estimate(48, 80)
  half = {"value": b["value"] / 2, "interval": [end / 2 for end in b["interval"]]}
  assert statistics.difference_interval(a, b, factor=0.5) == pytest.approx(
    statistics.difference_interval(a, half)
  )
  low, high = statistics.difference_interval(a, b)
  assert statistics.difference_interval(b, a) == pytest.approx((-high, -low))
  negative = {"value": -b["value"], "interval": [-end for end in b["interval"][::-1]]}
  assert statistics.difference_interval(a, negative, factor=-1) == pytest.approx((low, high))
  assert statistics.difference_interval(a, statistics.share([])) is None
