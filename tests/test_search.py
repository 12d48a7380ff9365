"""What searches have in common: the best picture, random noise, and rows that leave."""

import jax
import jax.numpy as jnp
import numpy as np

from jprotop.attacks import noise, search
from jprotop.attacks.apgd import APGD
from jprotop.attacks.budget import Numbers
from jprotop.attacks.drive import Attack
from jprotop.attacks.pgd import Room
from jprotop.attacks.search import Seen
from jprotop.attacks.search_rows import Tries, drive_rows
from jprotop.prototypes.see import Network

SHAPE, EPS = (3, 4, 5, 3), 0.1


def pictures(seed=0, shape=SHAPE):
  return np.random.default_rng(seed).uniform(0, 1, shape).astype(np.float32)


def masks(seed=1):
  return np.random.default_rng(seed).uniform(size=SHAPE[:3]) < 0.6


def keys(count=SHAPE[0], seed=0):
  return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(count))


def test_the_best_picture_is_that_of_the_success_test():
  """What is raised may rise while the prototype moves and comes back."""
  margins, kept = [-1.0, 0.5, 0.2, 0.9, -2.0], [True, False, True, False, True]

  def seen(x):
    look = x[:, 0, 0, 0].astype(int)
    values = jnp.array(margins)[look], jnp.array(kept)[look]
    return Seen(look.astype(float), *values)

  def step(state, objective, room, numbers):
    state = search.note(state, objective(state.x))
    return state.replace(x=state.x + 1)

  def found(looks):
    start = jnp.zeros((1, 1, 1, 3))
    state = search.State(**search.fields(start, keys(1), looks))
    numbers = Numbers(eps=1.0, step_size=0.0, num_steps=9)
    room = Room(start, jnp.ones((1, 1, 1), bool))
    state = search.method(step, step).run(state, seen, room, numbers)
    return int(state.level[0]), int(state.found[0, 0, 0, 0]), int(state.looks[0])

  assert found(1) == (search.FAILED, 0, 1)
  assert found(2) == (search.MOVED, 1, 2)
  assert found(5) == (search.KEPT, 2, 3)  # It ends there, though a later margin is larger.


STEEP = np.random.default_rng(8).uniform(0.5, 2, SHAPE).astype(np.float32)


def low(x):
  """Higher the darker the picture is; no two pixels count the same."""
  margin = -jnp.sum(STEEP * x, axis=(1, 2, 3))
  return Seen(jnp.zeros(len(x)), margin, jnp.ones(len(x), bool))


def test_a_margin_that_is_not_a_number_is_worse_than_any():
  state = search.State(**search.fields(jnp.zeros((1, 1, 1, 3)), keys(1), 9))
  for look, margin in enumerate([jnp.nan, -5.0, jnp.nan]):
    state = state.replace(x=jnp.full((1, 1, 1, 3), look))
    seen = Seen(jnp.zeros(1), jnp.array([margin]), jnp.ones(1, bool))
    state = search.note(state, seen)
  assert (state.margin[0], state.best[0, 0, 0, 0], state.looks[0]) == (-5, 1, 3)
  assert state.level[0] == search.FAILED


def test_random_noise_is_drawn_anew_for_each_look_and_its_best_is_kept():
  room = Room(jnp.asarray(pictures()), jnp.asarray(masks()))
  numbers = Numbers(eps=EPS, step_size=0.0, num_steps=20)
  state, seen, tried = noise.NOISE.init(room, numbers, keys()), [], []
  for _ in range(20):
    tried.append(np.asarray(state.x))
    seen.append(np.asarray(low(state.x).margin))
    state = noise.step(state, low, room, numbers)
  assert len({picture.tobytes() for picture in tried}) == 20
  change = np.abs(np.array(tried) - np.asarray(room.image))
  assert not change[:, ~np.asarray(room.mask)].any() and change.max() <= EPS + 1e-6
  best = np.array(tried)[np.argmax(seen, axis=0), np.arange(SHAPE[0])]
  np.testing.assert_array_equal(state.found, best)


def brightness(network, images, batch, numbers):
  """Succeeds where a picture's mean exceeds its threshold, with its class kept if it may be."""
  margin = images.mean(axis=(1, 2, 3)) - batch["threshold"]
  return Seen(margin, margin, batch["may_keep"])


def bright_tries(reachable, may_keep):
  """Grey pictures, and by how much more than eps each try must brighten them."""
  reachable, may_keep = np.array(reachable), np.array(may_keep)
  tries, count = reachable.shape

  def arrays(chosen):
    arrays.asked += chosen.tolist()
    try_, subject = chosen // count, chosen % count
    threshold = 0.5 + np.where(reachable[try_, subject], 0.5, 1.5) * EPS
    return {
      "image": np.full((len(chosen), 2, 2, 3), 0.5, np.float32),
      "key": np.stack([chosen, chosen], axis=1).astype(np.uint32),
      "threshold": threshold.astype(np.float32),
      "may_keep": may_keep[try_, subject],
    }

  arrays.asked = []
  return Tries(np.arange(tries * count) % count, arrays)


def test_rows_leave_and_every_subject_gets_its_best_try():
  reachable = [[1, 0, 0, 1, 0], [1, 1, 0, 0, 0], [0, 0, 0, 1, 1]]
  may_keep = [[1, 1, 1, 0, 1], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
  tries = bright_tries(np.array(reachable, bool), np.array(may_keep, bool))
  found = drive_rows(
    Attack(brightness, APGD),
    Network(None, {}),
    tries,
    Numbers(eps=EPS, step_size=0.0, num_steps=6),
    num_subjects=5,
    rows=6,
    title=None,
  )
  level = np.where(np.array(reachable, bool), np.where(may_keep, search.KEPT, search.MOVED), 0)
  assert found.level.tolist() == level.max(axis=0).tolist()
  assert found.moved.tolist() == [True, True, False, True, True]
  assert found.kept.tolist() == [True, True, False, True, True]
  by = found.by[found.kept]
  assert [(one // 5, one % 5) for one in by] == [(0, 0), (1, 1), (2, 3), (2, 4)]
  brightened = found.image.mean(axis=(1, 2, 3)) - 0.5
  assert (brightened[found.kept] > 0.5 * EPS).all() and (brightened <= EPS + 1e-6).all()
  # Of subjects that are over, the tries that wait never begin.
  asked = tries.arrays.asked
  assert len(set(asked)) == len(asked) and {10, 11}.isdisjoint(asked) and {7, 12} <= set(asked)


def test_without_images_the_same_is_found():
  one = np.ones((1, 3), bool)
  found = drive_rows(
    Attack(brightness, APGD),
    Network(None, {}),
    bright_tries([[True, False, True]], one),
    Numbers(eps=EPS, step_size=0.0, num_steps=6),
    num_subjects=3,
    rows=6,
    title=None,
    images=False,
  )
  assert found.kept.tolist() == [True, False, True] and found.image.shape == (3, 0, 0, 3)


def test_without_a_try_nothing_is_found():
  found = drive_rows(
    Attack(brightness, APGD),
    Network(None, {}),
    Tries(np.zeros(0, int), lambda chosen: {}),
    Numbers(eps=EPS, step_size=0.0, num_steps=6),
    num_subjects=0,
    rows=2,
    title=None,
  )
  assert not len(found.level) and not found.kept.any()
