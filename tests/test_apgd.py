"""Auto-PGD next to the paper's Algorithm 1 in plain lines, and the rule for its step."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jprotop.attacks import apgd, pgd
from jprotop.attacks.budget import Budget

EPS = 0.1
SHAPE = (6, 5, 3)


def test_checkpoints_are_those_of_the_paper():
  (found,) = np.nonzero(apgd.checkpoints(100))
  assert found.tolist() == [0, 22, 41, 57, 70, 80, 87, 93, 99]
  (found,) = np.nonzero(apgd.checkpoints(20))
  assert found.tolist() == [0, 5, 9, 12, 14, 16, 18, 19, 20]
  assert apgd.checkpoints(0).tolist() == [True]


@pytest.fixture(scope="module")
def hills():
  """Three images, and of each the top of a hill nearby, the size of its waves, and a mask."""
  rng = np.random.default_rng(0)
  image = rng.uniform(0, 1, (3, *SHAPE)).astype(np.float32)
  top = image + rng.uniform(-0.12, 0.12, image.shape).astype(np.float32)
  waves = np.array([0, 3e-3, 4e-2], np.float32)
  return image, top, waves, rng.random((3, *SHAPE[:2])) < 0.8


def height(away, waves, xp=np):
  """The value of images [..., H, W, 3] that lie so far away from the top."""
  return (waves * xp.cos(60 * away) - away**2).sum((-3, -2, -1))


def slope(away, waves):
  return -waves * 60 * np.sin(60 * away) - 2 * away


def algorithm_1(x, image, top, waves, mask, num_steps):
  """Of one image, the best iterate and the last step's size. `w` are the paper's checkpoints."""

  def into(x):
    return np.clip(image + np.clip(x - image, -EPS, EPS) * mask[..., None], 0, 1)

  def f(x):
    return height(x - top, waves)

  p = [0, 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99]
  w = [math.ceil(round(share * num_steps, 9)) for share in p]
  size, xs, best, values, halved = 2 * EPS, [x], x, [f(x)], False
  best_at_last = f(x)
  for k in range(num_steps):
    z = into(xs[-1] + size * np.sign(slope(xs[-1] - top, waves)) * mask[..., None])
    x = z if k == 0 else into(xs[-1] + 0.75 * (z - xs[-1]) + 0.25 * (xs[-1] - xs[-2]))
    xs, values = [*xs, x], [*values, f(x)]
    best = x if f(x) > f(best) else best
    if k + 1 in w:
      last = max(at for at in w if at < k + 1)
      raised = sum(values[i + 1] > values[i] for i in range(last, k + 1))
      stuck = not halved and f(best) == best_at_last
      halved, best_at_last = raised < 0.75 * (k + 1 - last) or stuck, f(best)
      if halved:
        size, xs[-1] = size / 2, best
  return best, size


@pytest.mark.parametrize("num_steps", [9, 30])
def test_auto_pgd_is_algorithm_1(hills, num_steps):
  image, top, waves, mask = hills
  numbers = apgd.numbers_of(Budget(eps=EPS, num_steps=num_steps))
  room = pgd.Room(jnp.asarray(image), jnp.asarray(mask))

  def raised(x):
    return height(x - top, waves[:, None, None, None], jnp), jnp.zeros(3, bool)

  begun = apgd.init(room, numbers, jax.random.split(jax.random.key(0), 3))
  found = apgd.run(begun, raised, room, numbers)
  for i in range(3):
    start = np.asarray(begun.x[i], float)
    best, size = algorithm_1(start, image[i], top[i], waves[i], mask[i], num_steps)
    np.testing.assert_allclose(found.pace.size[i], size, rtol=1e-5)
    np.testing.assert_allclose(found.found[i], best, atol=1e-4)
  assert found.looks.tolist() == [num_steps + 1] * 3


def test_a_row_stays_where_it_reached_its_goal(hills):
  """It is found there, not at its best value, and the others go on; slices change nothing."""
  image, top, waves, mask = hills
  numbers = apgd.numbers_of(Budget(eps=EPS, num_steps=8))
  room = pgd.Room(jnp.asarray(image), jnp.asarray(mask))
  changed = jnp.array([1, 2, 1e9])

  def raised(x):
    # The sums of changes that some iterates have, which the first two rows reach in time.
    value = height(x - top, waves[:, None, None, None], jnp)
    return value, jnp.abs(x - image).sum((1, 2, 3)) >= changed

  begun = apgd.init(room, numbers)
  found = apgd.run(begun, raised, room, numbers)
  assert found.reached.tolist() == [True, True, False]
  assert found.looks[2] == 9 > found.looks[:2].max()
  np.testing.assert_array_equal(found.found[:2], found.x[:2])
  np.testing.assert_array_equal(found.found[2], found.best[2])
  sliced = begun
  for _ in range(5):
    sliced = apgd.run(sliced, raised, room, numbers.replace(num_steps=2))
  jax.tree.map(np.testing.assert_array_equal, sliced, found)


def test_the_rule_halves_for_each_of_its_two_conditions():
  """Three rows, five values up to a checkpoint: all rising; one rising; rising, but below the
  first. Then the last one is halved, so that it is not halved for that again."""
  pace = apgd.start(1.0, 3)
  values = [[0, 0, 9], [1, 1, 1], [2, 0, 2], [3, 0, 3], [4, 0, 4]]
  for k, value in enumerate(values):
    at = jnp.full(3, k in (0, 4))
    pace, halved = apgd.judge(pace, jnp.array(value, jnp.float32), at)
  assert halved.tolist() == [False, True, True]
  for k in range(4):
    value = jnp.array([5 + k, 5 + k, 5 + k / 10], jnp.float32)
    pace, halved = apgd.judge(pace, value, jnp.full(3, k == 3))
  assert halved.tolist() == [False, False, False]
  assert pace.size.tolist() == [1, 0.5, 0.5]
  pace, _ = apgd.judge(pace, jnp.full(3, jnp.nan), jnp.zeros(3, bool))
  assert pace.best.tolist() == pytest.approx([8, 8, 9])
