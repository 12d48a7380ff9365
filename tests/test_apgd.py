"""APGD next to the paper's Algorithm 1 in plain lines, and the rule for its step."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jprotop.attacks import apgd
from jprotop.attacks.budget import Numbers
from jprotop.attacks.pgd import Room
from jprotop.attacks.search import Seen

EPS = 0.1
SHAPE = (6, 5, 3)


@pytest.mark.parametrize(
  ("num_steps", "wanted"),
  [
    (100, [0, 22, 41, 57, 70, 80, 87, 93, 99]),
    (20, [0, 5, 9, 12, 14, 16, 18, 19, 20]),
    (1, [0, 1]),
    (0, [0]),
  ],
)
def test_checkpoints_are_those_of_the_paper(num_steps, wanted):
  steps = jnp.arange(num_steps + 1)
  found = apgd.is_checkpoint(steps, jnp.full(num_steps + 1, num_steps))
  assert np.flatnonzero(found).tolist() == wanted


# Of three images, the top of a hill nearby and the size of its waves, and a mask.
RNG = np.random.default_rng(0)
IMAGE = RNG.uniform(0, 1, (3, *SHAPE)).astype(np.float32)
TOP = IMAGE + RNG.uniform(-0.12, 0.12, IMAGE.shape).astype(np.float32)
WAVES = np.array([0, 3e-3, 4e-2], np.float32)
MASK = RNG.random((3, *SHAPE[:2])) < 0.8
ROOM = Room(jnp.asarray(IMAGE), jnp.asarray(MASK))


def height(away, waves, xp=np):
  """The value of images [..., H, W, 3] that lie so far away from the top."""
  return (waves * xp.cos(60 * away) - away**2).sum((-3, -2, -1))


def slope(away, waves):
  return -waves * 60 * np.sin(60 * away) - 2 * away


def hill(x):
  value = height(x - TOP, WAVES[:, None, None, None], jnp)
  return Seen(value, jnp.full(len(x), -1.0), jnp.ones(len(x), bool))


@jax.jit
def one_step(state, numbers):
  return apgd.step(state, hill, ROOM, numbers)


@jax.jit
def run(state, numbers):
  return apgd.APGD.run(state, hill, ROOM, numbers)


def begin(num_steps):
  """(state, numbers)."""
  numbers = Numbers(eps=EPS, step_size=0.0, num_steps=num_steps)
  return apgd.init(ROOM, numbers, jax.random.split(jax.random.key(0), 3)), numbers


def algorithm_1(x, image, top, waves, mask, num_steps):
  """Of one image, the best iterate and the sizes of all steps. `w` are the paper's checkpoints."""

  def into(x):
    return np.clip(image + np.clip(x - image, -EPS, EPS) * mask[..., None], 0, 1)

  def f(x):
    return height(x - top, waves)

  p = [0, 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99]
  w = [math.ceil(round(share * num_steps, 9)) for share in p]
  size, x_before, best, halved, raised = 2 * EPS, x, x, False, 0
  best_at_last, last, sizes = f(x), 0, []
  for k in range(num_steps):
    sizes.append(size)
    z = into(x + size * np.sign(slope(x - top, waves)))
    new = z if k == 0 else into(x + 0.75 * (z - x) + 0.25 * (x - x_before))
    raised += f(new) > f(x)
    x_before, x = x, new
    best = x if f(x) > f(best) else best
    if k + 1 in w:
      stuck = not halved and f(best) == best_at_last
      halved = raised < 0.75 * (k + 1 - last) or stuck
      last, best_at_last, raised = k + 1, f(best), 0
      if halved:
        size, x = size / 2, best
  return best, [*sizes, size]


@pytest.mark.parametrize("num_steps", [0, 1, 9, 50])
def test_apgd_is_algorithm_1(num_steps):
  state, numbers = begin(num_steps)
  start, sizes = np.asarray(state.x, float), []
  while not state.done.all():
    state = one_step(state, numbers)
    sizes.append(np.asarray(state.pace.size))
  assert state.looks.tolist() == [num_steps + 1] * 3
  for i in range(3):
    best, wanted = algorithm_1(start[i], IMAGE[i], TOP[i], WAVES[i], MASK[i], num_steps)
    np.testing.assert_allclose(np.array(sizes)[:, i], wanted, rtol=1e-5)
    np.testing.assert_allclose(state.x_highest[i], best, atol=1e-4)
  assert num_steps < 50 or (sizes[-1] < EPS / 4).all()  # It settles.


def test_programs_of_some_looks_find_what_one_of_all_finds():
  begun, numbers = begin(9)
  once, state = run(begun, numbers.replace(num_steps=99)), begun
  for _ in range(3):
    state = run(state, numbers.replace(num_steps=4))
  assert once.looks.tolist() == [10] * 3
  jax.tree.map(np.testing.assert_array_equal, once, state)


def test_the_rule_halves_for_each_of_its_two_conditions():
  """Three rows, five values up to a checkpoint: all rising; one rising; rising, but below the
  first. Then the last one is halved, so that it is not halved for that again."""
  pace = apgd.start(1.0, 3)
  values = [[0, 0, 9], [1, 1, 1], [2, 0, 2], [3, 0, 3], [4, 0, 4]]
  for k, value in enumerate(values):
    at = jnp.full(3, k in (0, 4))
    pace, halved = apgd.judge(pace, jnp.array(value, jnp.float32), at)
  assert halved.tolist() == [False, True, True]
  # Those go on from their best iterates, of values 1 and 9.
  assert pace.last.tolist() == [4, 1, 9]
  values = [[5, 5, 8], [6, 6, 8.1], [7, 7, 8.2], [8, 8, 8.3], [9, 9, 8.4]]
  for k, value in enumerate(values):
    pace, halved = apgd.judge(pace, jnp.array(value, jnp.float32), jnp.full(3, k == 4))
  assert halved.tolist() == [False, False, False]
  assert pace.size.tolist() == [1, 0.5, 0.5]


def test_what_is_not_a_number_is_worse_than_any_value():
  pace = apgd.start(1.0, 1)
  for k, value in enumerate([jnp.nan, -5.0, jnp.nan, -4.0]):
    pace, halved = apgd.judge(pace, jnp.array([value]), jnp.array([k == 0]))
    assert not halved.any()  # Nothing was found before the start that could not be raised.
  assert pace.best.tolist() == [-4] and pace.raised.tolist() == [2]
