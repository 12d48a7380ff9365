"""Masked PGD against a loop in NumPy, and the constraints of Eq. (3)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jprotop.attacks import objectives, pgd
from jprotop.attacks.budget import Budget
from jprotop.errors import InputError

EPS, STEP = 8 / 255, 2 / 255
SHAPE = (3, 4, 5, 3)
masked_pgd = jax.jit(pgd.masked_pgd, static_argnums=0)


def picture(seed=0, low=0.0, high=1.0):
  return np.random.default_rng(seed).uniform(low, high, SHAPE).astype(np.float32)


def half_masks(seed=1):
  return np.random.default_rng(seed).random(SHAPE[:3]) < 0.5


def wave(x, module=jnp):
  """An objective with signs that change on the way: sum of sin(40 x) cos(position), [B]."""
  position = np.arange(np.prod(SHAPE[1:]), dtype=np.float32).reshape(1, *SHAPE[1:])
  return module.sum(module.sin(40 * x) * np.cos(position), axis=(1, 2, 3))


def wave_gradient(x):
  position = np.arange(np.prod(SHAPE[1:])).reshape(1, *SHAPE[1:])
  return 40 * np.cos(40 * x) * np.cos(position)


def slow_pgd(image, mask, eps, step_size, num_steps, start=None):
  """One pixel after the other, as Eq. (3) is read aloud."""
  x = np.array(image if start is None else start, np.float64)
  for _ in range(num_steps):
    gradient = wave_gradient(x)
    for place in np.ndindex(x.shape):
      if not mask[place[:3]]:
        x[place] = image[place]
        continue
      moved = x[place] + step_size * np.sign(gradient[place])
      moved = min(max(moved, image[place] - eps), image[place] + eps)
      x[place] = min(max(moved, 0.0), 1.0)
  return x


def keys(count=3, seed=0):
  return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(count))


@pytest.mark.parametrize("num_steps", [1, 7])
@pytest.mark.parametrize("start", ["image", "on the mask", "everywhere"])
def test_masked_pgd_equals_its_slow_twin(num_steps, start):
  image, mask = picture(), half_masks()
  image[0, 0, 0] = (0, 0.5, 1)  # the borders of [0, 1] matter
  options, begin = {}, None
  if start != "image":
    everywhere = start == "everywhere"
    options = {"keys": keys(), "start_off_mask": everywhere}
    begin = masked_pgd(
      wave, image, mask, eps=EPS, step_size=STEP, num_steps=0, keys=keys(),
      start_off_mask=everywhere,
    )  # fmt: skip
    begin = np.asarray(begin)
  found = masked_pgd(wave, image, mask, eps=EPS, step_size=STEP, num_steps=num_steps, **options)
  wanted = slow_pgd(image, mask, EPS, STEP, num_steps, begin)
  np.testing.assert_allclose(found, wanted, atol=1e-6)
  if start == "image" and num_steps == 1:
    assert np.abs(found - image)[mask].max() == pytest.approx(STEP, abs=1e-6)


@given(
  eps=st.floats(0, 1),
  step_size=st.floats(0.001, 1),
  num_steps=st.integers(0, 5),
  random_start=st.booleans(),
  seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_never_leaves_the_ball_the_mask_or_the_pixel_range(
  eps, step_size, num_steps, random_start, seed
):
  image, mask = picture(seed), half_masks(seed + 1)
  found = masked_pgd(
    wave, image, mask, eps=eps, step_size=step_size, num_steps=num_steps,
    keys=keys(seed=seed) if random_start else None,
  )  # fmt: skip
  found = np.asarray(found)
  assert found.min() >= 0 and found.max() <= 1
  assert np.abs(found - image).max() <= eps + 1e-6
  assert (found[~mask] == image[~mask]).all()


def attacked(images, *, num_steps=5, eps=EPS, **options):
  mask = half_masks()[: len(images)]
  return np.asarray(
    masked_pgd(wave, images, mask, eps=eps, step_size=STEP, num_steps=num_steps, **options)
  )


def test_eps_0_or_no_steps_from_the_image_return_the_image():
  image = picture()
  assert (attacked(image, eps=0.0, keys=keys()) == image).all()
  assert (attacked(image, num_steps=0) == image).all()


def test_random_starts_follow_their_key_alone():
  image = picture()
  assert (attacked(image) == attacked(image)).all()
  first = attacked(image, keys=keys())
  assert (first == attacked(image, keys=keys())).all()
  assert (first != attacked(image, keys=keys(seed=1))).any()
  # An image alone is attacked as it is in company.
  alone = attacked(image[:1], keys=keys()[:1])
  assert (alone == first[:1]).all()
  # Two equal images with two keys start apart; the start fills the ball.
  noise = np.asarray(pgd.uniform_noise(keys(2), (32, 32, 3), EPS))
  assert np.abs(noise).max() == pytest.approx(EPS, rel=0.01) and abs(noise.mean()) < EPS / 20
  assert np.abs(noise[0] - noise[1]).mean() > EPS / 2


def test_a_start_off_the_mask_is_gone_after_the_first_step():
  image, off = picture(low=0.2, high=0.8), ~half_masks()
  options = {"keys": keys(), "start_off_mask": True}
  assert (attacked(image, num_steps=0, **options)[off] != image[off]).mean() > 0.9
  assert (attacked(image, num_steps=1, **options)[off] == image[off]).all()
  assert (attacked(image, num_steps=0, keys=keys())[off] == image[off]).all()


def test_vanish_lowers_the_activation_of_the_prototype(tiny):
  model, variables = tiny
  images = jnp.asarray(np.random.default_rng(0).random((2, 32, 32, 3)), jnp.float32)
  prototype = jnp.array([1, 4])

  def objective(x):
    return objectives.vanish(objectives.prototype_maps(model, variables, x, prototype))

  @jax.jit
  def before_and_after(x):
    mask = jnp.ones(x.shape[:3], bool)
    moved = pgd.masked_pgd(objective, x, mask, eps=EPS, step_size=STEP, num_steps=10)
    return objective(x), objective(moved)

  before, after = before_and_after(images)
  assert (-after < -before).all()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"eps": 8}, "eps=8 is outside .* 8/255 as 0.03137"),
    ({"eps": -0.1}, "eps=-0.1 is outside"),
    ({"eps": float("nan")}, "eps=nan is outside"),
    ({"step_size": 0}, "step_size=0 is outside"),
    ({"num_steps": -1}, "num_steps=-1 is negative"),
    ({"survive_jpeg": 96}, "JPEG quality=96"),
  ],
)
def test_budgets_that_make_no_sense_are_refused(changes, message):
  with pytest.raises(InputError, match=message):
    Budget(**changes)
