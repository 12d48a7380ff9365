"""The strongest attacks on the classification: their losses, and who is still right after them."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from linear_network import linear_network
from miniature import split_of

from jprotop import parallel
from jprotop.attacks import against_class, apgd, refill
from jprotop.attacks.against_class import Effort
from jprotop.attacks.budget import Budget
from jprotop.attacks.drive import Attack
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


def nearing(network, images, batch, numbers):
  """Raises the mean colour; the goal is the batch's `enough`."""
  value = images.mean(axis=(1, 2, 3))
  return value, value >= batch["enough"]


def test_rows_leave_and_others_take_their_place():
  """Two tries on each of six images, in four slots: the second only where the first fails."""
  image, enough = np.arange(12) % 6, np.full(12, 0.55, np.float32)
  enough[[0, 2, 4]] = 0.9  # Out of reach.
  asked = []

  def rows_of(rows):
    asked.extend(rows.tolist())
    pixels = np.full((len(rows), 8, 8, 3), 0.5, np.float32)
    return {"image": pixels, "enough": enough[rows], "key": np.zeros((len(rows), 2), np.uint32)}

  attack, numbers = Attack(nearing, apgd.METHOD), apgd.numbers_of(Budget(eps=0.1, num_steps=6))
  network, _ = linear_network()
  found = refill.rows_that_reach(attack, network, rows_of, image, numbers, slots=4, title=None)
  assert np.flatnonzero(found).tolist() == [1, 3, 5, 6, 8, 10]
  assert sorted(asked) == [0, 1, 2, 3, 4, 5, 6, 8, 10]


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


@pytest.mark.parametrize("attack", range(3))
def test_each_attack_alone_misleads_images_that_fall_at_half_of_eps(known, attack):
  network, split, logits, falls = known
  eps = float(2 * np.median(falls))
  stages = against_class._stages(split, split.label, logits, Effort(eps, 12, 1, 3, 400))
  name, how, numbers, tries = stages[attack]
  weak = np.flatnonzero(falls < eps / 2)
  image = np.repeat(weak, tries.shape[1])

  def rows_of(rows):
    return {
      "image": split.pixels[image[rows]],
      "label": split.label[image[rows]].astype(np.int32),
      "target": tries[weak].ravel()[rows].astype(np.int32),
      "key": parallel.key_array(0, rows),
    }

  reached = refill.rows_that_reach(how, network, rows_of, image, numbers, slots=6, title=None)
  assert set(image[reached]) == set(weak), name


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
