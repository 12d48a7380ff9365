"""One pattern for many images, next to what is best for a network that is linear."""

import json

import numpy as np
import pytest
from linear_network import linear_network

from jprotop.attacks import universal
from jprotop.attacks.budget import Budget
from jprotop.experiments import universal_numbers
from jprotop.experiments.universal_numbers import ALL, EACH, Seen
from jprotop.report import universal_charts

EPS = 0.1


def wanted_logit(network, images, batch, numbers):
  """Raises the logit of the batch's `wanted` class."""
  return (network(images).logits * batch["wanted"]).sum(axis=1)


def fit(wanted, **changes):
  """The pattern for images that want a class each."""
  network, weights = linear_network()
  rng = np.random.default_rng(0)
  examples = {
    "image": rng.uniform(0.3, 0.7, (len(wanted), 4, 4, 3)).astype(np.float32),
    "wanted": np.eye(4, dtype=np.float32)[wanted],
  }
  budget = Budget(**{"eps": EPS, "step_size": 0.03, "num_steps": 8, **changes})
  found = universal.fit(
    network, examples, budget, objective=wanted_logit, seed=0, batch_size=4, title=None
  )
  return found, weights


def test_the_pattern_is_the_best_one_for_all_images_together():
  """Of the mean of what three images want, which no padding row and no device takes part in."""
  found, weights = fit([0, 0, 3])
  best = EPS * np.sign(2 * weights[:, 0] + weights[:, 3])
  np.testing.assert_allclose(found, np.broadcast_to(best, (4, 4, 3)), atol=1e-6)


def test_steps_are_signed_and_few_steps_stay_within_them():
  found, weights = fit([1, 1], num_steps=2)
  np.testing.assert_allclose(found[0, 0], 0.06 * np.sign(weights[:, 1]), atol=1e-6)
  assert not fit([1], num_steps=0)[0].any()


def test_each_image_is_seen_once_before_one_is_seen_again():
  steps = np.concatenate(list(universal._drawn(5, 2, 10, seed=0))).reshape(4, 5)
  assert [sorted(each) for each in steps.tolist()] == [[0, 1, 2, 3, 4]] * 4


def test_the_control_is_as_large_and_images_stay_in_range():
  pattern = universal.random_pattern(16, EPS, 3)
  assert set(np.unique(pattern)) == {np.float32(-EPS), np.float32(EPS)}
  assert abs(pattern.mean()) < EPS / 5
  images = np.array([0.0, 0.5, 1.0], np.float32).reshape(3, 1, 1, 1).repeat(3, axis=3)
  shown = universal.add(images, np.full((1, 1, 3), 0.1, np.float32))
  np.testing.assert_allclose(shown[:, 0, 0, 0], [0.1, 0.6, 1.0])


def test_the_classes_own_patterns_count_together():
  def seen(moved, control):
    count = len(moved)
    hits = [np.array(hits, bool) for hits in (moved, control, [0] * count)]
    return Seen(np.ones(2, bool), *hits)

  rows = universal_numbers.summarise(
    {ALL: seen([1, 0], [0, 0]), "auk": seen([1, 1, 0], [0, 0, 1]), "bee": seen([1], [0])}
  )
  assert [row["fitted_for"] for row in rows] == [ALL, EACH, "auk", "bee"]
  together = rows[1]
  assert (together["moved"]["count"], together["moved"]["total"]) == (3, 4)
  assert together["moved_fitted"]["total"] == 4 and together["control"]["count"] == 1
  assert together["moved_minus_control"]["value"] == pytest.approx(0.5)
  assert together["moved_and_prediction_kept"]["count"] == 0


def test_patterns_are_drawn_also_where_there_is_one():
  figure = universal_charts.patterns({"all": np.zeros((4, 4, 3))}, EPS)
  assert [axes.get_title(loc="left") for axes in figure.axes] == ["all"]


def test_a_study_has_one_pattern_for_all(study):
  workdir, _, _ = study
  record = json.loads((workdir / "results.json").read_text())["universal"]["standard"]
  with np.load(workdir / "standard/universal.npz") as arrays:
    assert arrays["pattern"].shape == (2, 64, 64, 3)
    assert 0 < np.abs(arrays["pattern"]).max() <= 8 / 255 + 1e-6
    names = arrays["fitted_for"].tolist()
  fitted_for = [row["fitted_for"] for row in record["patterns"]]
  assert [fitted_for[0], *fitted_for[2:]] == names
