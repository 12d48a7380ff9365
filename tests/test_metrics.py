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
