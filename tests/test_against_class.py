"""The strongest attacks on the classification: their losses, and who is still right after them."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from linear_network import linear_network
from miniature import split_of

from jprotop.attacks import against_class, search
from jprotop.attacks.against_class import Effort
from jprotop.attacks.budget import Budget
from jprotop.experiments.robustness_numbers import summarise
from jprotop.prototypes.accuracy import packed, unpacked


def test_the_targeted_loss_is_equation_7():
  logits = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
  label, target = np.array([0, 1, 2, 3, 4]), np.array([5, 0, 1, 2, 3])
  found = against_class.targeted_dlr(jnp.asarray(logits), jnp.asarray(label), jnp.asarray(target))
  for z, y, t, value in zip(logits, label, target, found):
    ordered = sorted(z, reverse=True)
    assert value == pytest.approx(
      -(z[y] - z[t]) / (ordered[0] - (ordered[2] + ordered[3]) / 2), rel=1e-5
    )
  # The scale of logits does not matter.
  again = against_class.targeted_dlr(
    jnp.asarray(100 * logits), jnp.asarray(label), jnp.asarray(target)
  )
  np.testing.assert_allclose(again, found, rtol=1e-4)


def test_with_three_classes_the_targeted_loss_is_the_difference_of_logits():
  logits = jnp.array([[3.0, 1.0, 2.0]])
  found = against_class.targeted_dlr(logits, jnp.array([0]), jnp.array([2]))
  assert found.tolist() == [-1.0]


def test_the_margin_is_positive_where_the_label_is_not_the_highest():
  logits = jnp.array([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]])
  assert against_class.margin(logits, jnp.array([0, 2])).tolist() == [-1.0, 1.0]


def test_targets_are_the_most_likely_other_classes():
  logits, label = np.array([[0.0, 3, 1, 2], [9.0, 3, 1, 2]]), np.array([1, 0])
  assert against_class.likely_targets(logits, label, 2).tolist() == [[3, 2], [1, 3]]
  assert against_class.likely_targets(logits, label, 9).shape == (2, 3)


def test_of_equal_logits_the_first_is_predicted():
  """So the others are misled, as in the accuracy of clean images."""
  network, _ = linear_network()
  images, label = jnp.zeros((3, 2, 2, 3)), jnp.array([0, 1, 3])
  batch = {"label": label, "target": jnp.array([-1, 0, 2])}
  seen = against_class.look_at(network, images, batch, Budget().numbers())
  assert (seen.level == search.KEPT).tolist() == [False, True, True]
  np.testing.assert_allclose(seen.value, [np.log(4), 0, 0], rtol=1e-6)


@pytest.fixture(scope="module")
def known():
  """(network, split, logits, eps at which each image is misled), of a network that is linear.

  Noise of eps changes the margin of class t over y by at most eps |w_t - w_y|_1; no pixel is near
  enough to 0 or 1 for a clip.
  """
  network, weights = linear_network()
  rng = np.random.default_rng(1)
  pixels = np.repeat(np.repeat(rng.integers(100, 156, (24, 1, 1, 3), np.uint8), 8, 1), 8, 2)
  logits = (pixels[:, 0, 0] / np.float32(255)) @ weights
  label = logits.argmax(axis=1)
  gap = np.abs(weights[:, label].T[:, :, None] - weights[None]).sum(axis=1)
  margin = logits[np.arange(24), label][:, None] - logits
  falls = np.where(np.arange(4) == label[:, None], np.inf, margin / np.maximum(gap, 1e-9))
  return network, split_of(pixels, label), logits, falls.min(axis=1)


def test_the_attacks_mislead_exactly_what_can_be_misled(known):
  network, split, logits, falls = known
  eps = float(np.median(falls))
  indices = np.arange(24)[::-1].copy()
  effort = Effort(eps, num_steps=12, restarts=2, targets=3, queries=20)
  found = against_class.misled(
    network, split, indices, logits[indices], effort, seed=0, batch_size=6
  )
  assert list(found) == list(against_class.ATTACKS)
  each = np.stack(list(found.values()))
  assert each.sum(axis=0).max() == 1  # Who is misled is not attacked again.
  clearly = np.abs(falls[indices] - eps) > 1e-3 * eps
  assert (each.any(axis=0) == (falls[indices] < eps))[clearly].all()
  assert 8 <= each.sum() <= 16


@pytest.mark.parametrize("attack", against_class.ATTACKS)
def test_each_attack_alone_misleads_images_that_fall_at_half_of_eps(known, attack, monkeypatch):
  network, split, logits, falls = known
  eps = float(2 * np.median(falls))
  weak = np.flatnonzero(falls < eps / 2)
  stages = against_class._stages

  def alone(*given):
    return [one for one in stages(*given) if one[0] == attack]

  monkeypatch.setattr(against_class, "_stages", alone)
  effort = Effort(eps, num_steps=12, restarts=1, targets=3, queries=400)
  found = against_class.misled(network, split, weak, logits[weak], effort, seed=0, batch_size=6)
  assert found[attack].all() and sum(hits.sum() for hits in found.values()) == len(weak)


def test_no_image_is_no_work(known):
  network, split, logits, _ = known
  nobody = np.zeros(0, int)
  found = against_class.misled(
    network, split, nobody, logits[nobody], Effort(0.1, 2, 1, 1, 2), seed=0, batch_size=6
  )
  assert [hits.shape for hits in found.values()] == [(0,)] * 3


def test_the_worst_is_of_all_attacks_and_pgd():
  clean, pgd = np.array([1, 1, 1, 1, 0], bool), np.array([1, 0, 1, 0, 0], bool)
  misled = {name: np.zeros(5, bool) for name in against_class.ATTACKS}
  misled["apgd_ce"][0] = misled["square"][1] = True
  numbers = summarise(clean, pgd, misled)
  names = ("clean", "pgd", "after_apgd_ce", "after_apgd_targeted", "after_square", "worst")
  assert [numbers[name]["count"] for name in names] == [4, 2, 3, 3, 2, 1]
  assert numbers["misled"] == {"apgd_ce": 1, "apgd_targeted": 0, "square": 1}
  assert numbers["pgd_missed"] == 1
  assert unpacked(numbers["hits"]["worst"], 5).tolist() == [False, False, True, False, False]


def test_a_study_measures_robustness_on_the_same_images(study):
  workdir, _, _ = study
  found = json.loads((workdir / "results.json").read_text())["robustness"]
  standard, adversarial = found["standard"], found["adversarial"]
  assert standard["images"] == adversarial["images"] and standard["eps"] == adversarial["eps"]
  for record in (standard, adversarial):
    clean, *shares = (record[name]["count"] for name in ("clean", "after_square", "pgd", "worst"))
    assert clean - sum(record["misled"].values()) == shares[0] and max(shares) <= clean
    assert min(shares) == shares[-1]
    hits = unpacked(record["hits"]["worst"], 4)
    assert packed(hits) == record["hits"]["worst"] and hits.sum() == record["worst"]["count"]
