"""Losses that keep maps: `maps` and `masking`, next to plain NumPy, on a network of one product."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jprotop.attacks import pgd
from jprotop.attacks.budget import Budget, Numbers
from jprotop.errors import InputError
from jprotop.prototypes.see import Network
from jprotop.training import keep_maps, masking, robust

CLASSES = (0, 0, 1, 1, 1)
LABEL = np.array([0, 1, 1])
EPS = 8 / 255


@dataclasses.dataclass(frozen=True)
class Product:
  """A network whose maps are the cells' mean colours times the prototypes'."""

  prototype_class: tuple = CLASSES
  backbone: str = "resnet_small"

  def apply(self, variables, images):
    count, side, _, _ = images.shape
    cells = images.reshape(count, side // 4, 4, side // 4, 4, 3).mean(axis=(2, 4))
    return types.SimpleNamespace(similarity_map=jnp.tanh(cells @ variables["colours"]))


@pytest.fixture(scope="module")
def case():
  """The network, three pictures of 16 x 16, and keys."""
  rng = np.random.default_rng(0)
  network = Network(Product(), {"colours": jnp.asarray(rng.normal(size=(3, 5)), jnp.float32)})
  images = jnp.asarray(rng.random((3, 16, 16, 3)), jnp.float32)
  return network, images, jnp.asarray(LABEL), jax.random.split(jax.random.key(1), 3)


def own_correlations(before, after):
  """Of each image, the correlations of its class's maps."""
  return [
    [
      np.corrcoef(before[i, :, :, j].ravel(), after[i, :, :, j].ravel())[0, 1]
      for j, c in enumerate(CLASSES)
      if c == LABEL[i]
    ]
    for i in range(len(LABEL))
  ]


def change(before, after):
  own = keep_maps.own_prototypes(CLASSES, jnp.asarray(LABEL))
  return keep_maps.map_change(jnp.asarray(before), jnp.asarray(after), own)


def test_a_change_is_one_minus_the_correlation_of_the_class_s_maps():
  before, after = np.random.default_rng(1).normal(size=(2, 3, 4, 4, 5)).astype(np.float32)
  wanted = [1 - np.mean(found) for found in own_correlations(before, after)]
  np.testing.assert_allclose(change(before, after), wanted, atol=1e-3)
  np.testing.assert_allclose(change(before, 3 * before + 2), 0, atol=1e-3)
  np.testing.assert_allclose(change(before, -before), 2, atol=1e-3)


def test_flat_maps_are_no_way_out():
  before = np.random.default_rng(1).normal(size=(3, 4, 4, 5)).astype(np.float32)
  flat = np.ones_like(before)
  np.testing.assert_allclose(change(flat, flat), 1)
  assert (change(1e-3 * before, 1e-3 * before) > 0.9).all(), "the flatter, the worse"


def test_the_noise_of_maps_changes_them_more_than_random_noise_and_stays_within_eps(case):
  network, images, label, keys = case
  numbers = Numbers(eps=EPS, step_size=2 / 255, num_steps=7)
  found = keep_maps.changed_most(network, images, label, keys, numbers)
  assert np.abs(found - images).max() <= EPS + 1e-6 and found.min() >= 0 and found.max() <= 1
  start = pgd.init(pgd.everywhere(images), numbers, keys).found
  before, by_chance, by_steps = (network(x).similarity_map for x in (images, start, found))
  assert (change(before, by_steps) > 1.5 * change(before, by_chance)).all()


def test_the_penalty_is_the_change_under_that_noise_which_is_not_differentiated(case):
  network, images, label, keys = case
  numbers = Numbers(eps=EPS, step_size=2 / 255, num_steps=3)
  noisy = keep_maps.changed_most(network, images, label, keys, numbers)

  def fixed(variables):
    maps = (Product().apply(variables, x).similarity_map for x in (images, noisy))
    return keep_maps.map_change(*maps, keep_maps.own_prototypes(CLASSES, label)).sum()

  def penalty(variables):
    return keep_maps.penalty(Network(Product(), variables), images, label, keys, numbers).sum()

  value, gradient = jax.value_and_grad(penalty)(network.variables)
  wanted, wanted_gradient = jax.value_and_grad(fixed)(network.variables)
  assert float(value) == pytest.approx(float(wanted), rel=1e-4)
  found, wanted = gradient["colours"], wanted_gradient["colours"]
  np.testing.assert_allclose(found, wanted, rtol=1e-2, atol=1e-4)
  assert np.abs(wanted).max() > 0


def test_masking_compares_the_map_where_it_was_high(case):
  network, images, label, keys = case
  own = keep_maps.own_prototypes(CLASSES, label)
  prototype, quantile = masking.drawn(own, keys)
  assert all(CLASSES[j] == c for j, c in zip(prototype.tolist(), LABEL))
  assert ((quantile >= 0.5) & (quantile <= 0.98)).all()
  found = masking.penalty(network, images, label, keys, Numbers(eps=0, step_size=1, num_steps=0))
  blank = np.array([0.485, 0.456, 0.406], np.float32)  # What ImageNet's normalisation makes 0.
  for i in range(len(LABEL)):

    def upsampled(image, j=int(prototype[i])):
      cells = network(jnp.asarray(image)[None]).similarity_map[0, :, :, j]
      return np.asarray(jax.image.resize(cells, (16, 16), "cubic"))

    before = upsampled(images[i])
    kept = before >= np.quantile(before, float(quantile[i]))
    painted = np.where(kept[..., None], images[i], blank)
    wanted = np.abs(upsampled(painted) - before)[kept].mean()
    assert float(found[i]) == pytest.approx(wanted, rel=1e-3)


def test_prototypes_and_quantiles_are_drawn_evenly():
  keys = jax.random.split(jax.random.key(0), 2000)
  own = jnp.asarray(np.tile([False, True, True, False], (2000, 1)))
  prototype, quantile = masking.drawn(own, keys)
  counts = np.bincount(prototype, minlength=4)
  assert counts[[0, 3]].sum() == 0 and abs(counts[1] - 1000) < 100
  assert float(quantile.mean()) == pytest.approx(0.74, abs=0.01)


def test_a_penalty_is_added_with_its_weight_and_told_without(tiny, monkeypatch):
  monkeypatch.setattr(robust, "METHODS", dict(robust.METHODS))
  robust.register_method("constant", penalty=lambda network, images, *_: images[:, 0, 0, 0])
  perturbation = robust.Perturbation("constant", Budget(), weight=10.0)
  batch = {
    "image": jnp.full((2, 4, 4, 3), 0.5),
    "label": jnp.zeros(2, int),
    "key": jax.random.key_data(jax.random.split(jax.random.key(0), 2)),
  }

  def loss(params, batch_stats, batch, train):
    return {"loss": jnp.ones(2), "accuracy": jnp.zeros(2)}, batch_stats

  values, _ = robust.penalised(loss, tiny[0], perturbation)({}, {}, batch, True)
  assert values["loss"].tolist() == [6, 6] and values["penalty"].tolist() == [0.5, 0.5]
  assert robust.perturbed_images(tiny[0], perturbation) is None
  plain = robust.Perturbation("pgd", Budget(), weight=10.0)
  assert robust.penalised(loss, tiny[0], plain) is loss
  with pytest.raises(InputError, match="a training method 'constant' already"):
    robust.register_method("constant")
