"""Fast FGSM and PGD against the class, next to the sheet's words in plain steps (App. F.1)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jprotop.attacks import class_pgd, pgd
from jprotop.attacks.budget import Numbers
from jprotop.prototypes import losses
from jprotop.prototypes.see import Network

EPS = 8 / 255


@pytest.fixture(scope="module")
def case(tiny):
  """The tiny network, six pictures that it classifies in its own way, and one key each."""
  model, variables = tiny
  images = jnp.asarray(np.random.default_rng(3).random((6, 32, 32, 3), np.float32))
  label = jax.jit(model.apply)(variables, images).logits.argmax(axis=1)
  return model, variables, images, label, jax.random.split(jax.random.key(1), 6)


def cross_entropy_gradient(model, variables, label):
  def loss(x):
    return losses.cross_entropy(model.apply(variables, x).logits, label).sum()

  return jax.jit(jax.grad(loss))


def noisy(images, keys):
  return jnp.clip(images + pgd.uniform_noise(keys, images.shape[1:], EPS), 0, 1)


def test_fast_fgsm_is_noise_and_one_signed_step_projected(case):
  model, variables, images, label, keys = case
  step = 10 / 255
  found = class_pgd.fast_fgsm(
    Network(model, variables), images, label, keys, Numbers(eps=EPS, step_size=step, num_steps=1)
  )
  start = noisy(images, keys)
  moved = start + step * jnp.sign(cross_entropy_gradient(model, variables, label)(start))
  expected = jnp.clip(images + jnp.clip(moved - images, -EPS, EPS), 0, 1)
  # Where the gradient is almost zero its sign is a matter of rounding.
  assert (np.abs(found - expected) > 1e-5).mean() < 1e-3
  assert np.abs(found - images).max() <= EPS + 1e-6 and found.min() >= 0 and found.max() <= 1


def test_n_fgsm_is_twice_the_noise_and_one_signed_step_that_nothing_projects(case):
  model, variables, images, label, keys = case
  step = 8 / 255
  found = class_pgd.n_fgsm(
    Network(model, variables), images, label, keys, Numbers(eps=EPS, step_size=step, num_steps=1)
  )
  start = jnp.clip(images + pgd.uniform_noise(keys, images.shape[1:], 2 * EPS), 0, 1)
  gradient = cross_entropy_gradient(model, variables, label)(start)
  expected = jnp.clip(start + step * jnp.sign(gradient), 0, 1)
  assert (np.abs(found - expected) > 1e-5).mean() < 1e-3
  assert 2.5 * EPS < np.abs(found - images).max() <= 3 * EPS + 1e-6


def test_pgd_to_train_on_goes_on_where_an_image_is_misled(case):
  model, variables, images, label, keys = case
  wrong = (label + 1) % 3
  numbers = Numbers(eps=EPS, step_size=2 / 255, num_steps=3)
  found = class_pgd.pgd_to_train_on(Network(model, variables), images, wrong, keys, numbers)
  x, gradient = noisy(images, keys), cross_entropy_gradient(model, variables, wrong)
  for _ in range(3):
    moved = x + 2 / 255 * jnp.sign(gradient(x))
    x = jnp.clip(images + jnp.clip(moved - images, -EPS, EPS), 0, 1)
  assert (np.abs(found - x) > 1e-5).mean() < 0.01


def test_an_image_once_misled_stays_as_it_is(case):
  model, variables, images, label, keys = case
  wrong = jnp.where(jnp.arange(6) < 2, (label + 1) % 3, label)  # Two are wrong from the start.
  numbers = Numbers(eps=EPS, step_size=2 / 255, num_steps=10)
  found = class_pgd.class_pgd(Network(model, variables), images, wrong, keys, numbers)
  x = noisy(images, keys)
  gradient = cross_entropy_gradient(model, variables, wrong)
  predict = jax.jit(lambda x: model.apply(variables, x).logits.argmax(axis=1))
  for _ in range(10):
    right = predict(x) == wrong
    moved = x + 2 / 255 * jnp.sign(gradient(x))
    moved = jnp.clip(images + jnp.clip(moved - images, -EPS, EPS), 0, 1)
    x = jnp.where(right[:, None, None, None], moved, x)
  assert (np.abs(found - x) > 1e-5).mean() < 0.01
  np.testing.assert_array_equal(found[:2], noisy(images, keys)[:2])
  np.testing.assert_array_equal(predict(found), predict(x))


def test_no_step_is_the_random_start(case):
  model, variables, images, label, keys = case
  found = class_pgd.class_pgd(
    Network(model, variables), images, label, keys, Numbers(eps=EPS, step_size=0.1, num_steps=0)
  )
  np.testing.assert_array_equal(found, noisy(images, keys))
