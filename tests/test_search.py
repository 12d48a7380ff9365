"""APGD, Square attack and the rows that leave, against plain twins on made objectives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jprotop.attacks import search, search_apgd, search_square
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


# A hill: steps of one size go back and forth over its top.
CENTRES = pictures(7)
STEEP = np.random.default_rng(8).uniform(0.5, 2, SHAPE).astype(np.float32)


def hill(x):
  value = -jnp.sum(STEEP * (x - CENTRES) ** 2, axis=(1, 2, 3))
  return Seen(value, jnp.full(len(x), -1.0), jnp.ones(len(x), bool))


@jax.jit
def apgd_step(state, room, numbers):
  return search_apgd.step(state, hill, room, numbers)


@jax.jit
def apgd_run(state, room, numbers):
  return search_apgd.APGD.run(state, hill, room, numbers)


def slow_apgd(start, image, mask, centre, steep, num_steps):
  """Algorithm 1 of Croce and Hein (2020) read aloud, for one picture; all iterates and values."""

  def project(x):
    x = np.where(mask[..., None], np.clip(x, image - EPS, image + EPS), image)
    return np.clip(x, 0, 1)

  def f(x):
    return -np.sum(steep * (x - centre) ** 2)

  def ascend(x, eta):
    return project(x + eta * np.sign(-2 * steep * (x - centre)))

  shares = [0.0, 0.22]
  while shares[-1] < 1:
    shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
  checkpoints = [int(np.ceil(round(p * num_steps, 9))) for p in shares]
  eta, x_before, x = 2 * EPS, start, ascend(start, 2 * EPS)
  best, f_best = max([(start, f(start)), (x, f(x))], key=lambda pair: pair[1])
  rises, halved_then, f_then, sizes = int(f(x) > f(start)), False, f(start), [eta]
  w_before = 0
  for k in range(1, num_steps + 1):
    if k in checkpoints:
      halve = rises < 0.75 * (k - w_before) or (not halved_then and f_best == f_then)
      w_before, rises, halved_then, f_then = k, 0, halve, f_best
      if halve:
        eta, x = eta / 2, best
    if k == num_steps:
      return best, sizes
    z = ascend(x, eta)
    new = project(x + 0.75 * (z - x) + 0.25 * (x - x_before))
    rises += f(new) > f(x)
    x_before, x = x, new
    sizes.append(eta)
    if f(x) > f_best:
      best, f_best = x, f(x)


@pytest.mark.parametrize("num_steps", [1, 9, 50])
def test_apgd_equals_its_slow_twin(num_steps):
  image, mask = pictures(), masks()
  room = Room(jnp.asarray(image), jnp.asarray(mask))
  numbers = Numbers(eps=EPS, step_size=0.0, num_steps=num_steps)
  state = begun = search_apgd.init(room, numbers, keys())
  taken = []
  while not state.done.all():
    taken.append(np.asarray(state.step_size))
    state = apgd_step(state, room, numbers)
  sizes = np.array(taken[1:]).T  # The first look decides nothing.
  for i in range(len(image)):
    start = np.asarray(begun.x[i], np.float64)
    best, wanted = slow_apgd(start, image[i], mask[i], CENTRES[i], STEEP[i], num_steps)
    np.testing.assert_allclose(state.x_highest[i], best, atol=1e-5)
    np.testing.assert_allclose(sizes[i], wanted, rtol=1e-6)
  assert num_steps < 50 or (sizes[:, -1] < EPS / 4).all()  # It settles.


def test_programs_of_some_looks_find_what_one_of_all_finds():
  room = Room(jnp.asarray(pictures()), jnp.asarray(masks()))
  numbers = Numbers(eps=EPS, step_size=0.0, num_steps=9)
  begun = search_apgd.init(room, numbers, keys())
  once = apgd_run(begun, room, Numbers(eps=EPS, step_size=0.0, num_steps=99))
  state = begun
  for _ in range(3):
    state = apgd_run(state, room, Numbers(eps=EPS, step_size=0.0, num_steps=4))
  assert (once.looks == 10).all()
  np.testing.assert_allclose(once.x_highest, state.x_highest, atol=1e-6)


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


def test_squares_lie_around_a_pixel_of_the_mask():
  mask = np.zeros((40, 12, 12), bool)
  mask[:, 2:5, 3:9] = True
  inside, signs = search_square.squares(keys(40), jnp.asarray(mask), jnp.full(40, 0.5))
  inside, signs = np.asarray(inside), np.asarray(signs)
  assert (inside.sum((1, 2)) <= 9).all() and (inside.sum((1, 2)) >= 4).all()  # 3 x 3
  assert (inside & mask).any((1, 2)).all() and len(np.unique(inside, axis=0)) > 10
  assert set(np.unique(signs)) == {-1, 1} and signs.shape == (40, 1, 1, 3)


def test_squares_become_smaller_as_published():
  most = np.repeat([1000, 5000, 10_000], 40)
  number = (np.tile(np.linspace(0, 0.999, 40), 3) ** 3 * most).astype(int)
  found = search_square.share_of_pixels(jnp.asarray(number), jnp.asarray(most))
  at = {10: 1, 50: 2, 200: 3, 500: 4, 1000: 5, 2000: 6, 4000: 7, 6000: 8, 8000: 9}
  scaled = number * 10_000 // most
  halved = [max([n for after, n in at.items() if one > after] or [0]) for one in scaled]
  assert set(halved) == set(range(10))
  np.testing.assert_allclose(found, 0.8 / 2.0 ** np.array(halved), rtol=1e-6)


def low(x):
  """Higher the darker the picture is; no two pixels count the same."""
  margin = -jnp.sum(STEEP * x, axis=(1, 2, 3))
  return Seen(jnp.zeros(len(x)), margin, jnp.ones(len(x), bool))


def test_square_attack_equals_its_slow_twin():
  image, mask, looks = pictures(), masks(), 12
  room = Room(jnp.asarray(image), jnp.asarray(mask))
  numbers = Numbers(eps=EPS, step_size=0.0, num_steps=looks)
  begun = search_square.init(room, numbers, keys())
  found = search_square.SQUARE.run(begun, low, room, numbers)
  change = np.asarray(begun.x) - image
  borders = np.stack([np.maximum(image - EPS, 0), np.minimum(image + EPS, 1)])
  assert np.isclose(np.asarray(begun.x), borders).any(0)[mask].all() and not change[~mask].any()
  for i in range(len(image)):
    best, tried = None, np.asarray(begun.x[i])
    for look in range(1, looks + 1):
      if best is None or (STEEP[i] * tried).sum() < (STEEP[i] * best).sum():
        best = tried
      key = jax.random.fold_in(keys()[i], look)
      share = search_square.share_of_pixels(jnp.array([look - 1]), jnp.array([looks]))
      inside, signs = search_square.squares(key[None], room.mask[i][None], share)
      changed = np.asarray(inside)[0] & mask[i]
      tried = best.copy()
      tried[changed] = np.clip(image[i] + EPS * np.asarray(signs[0]), 0, 1)[changed]
    np.testing.assert_allclose(found.found[i], best, atol=1e-6)
    assert (STEEP[i] * (best - np.asarray(begun.x[i]))).sum() < 0


def test_random_noise_is_drawn_anew_for_each_look_and_its_best_is_kept():
  room = Room(jnp.asarray(pictures()), jnp.asarray(masks()))
  numbers = Numbers(eps=EPS, step_size=0.0, num_steps=20)
  state, seen, tried = search_square.NOISE.init(room, numbers, keys()), [], []
  for _ in range(20):
    tried.append(np.asarray(state.x))
    seen.append(np.asarray(low(state.x).margin))
    state = search_square.step_noise(state, low, room, numbers)
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
    Attack(brightness, search_apgd.APGD),
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


def test_without_a_try_nothing_is_found():
  found = drive_rows(
    Attack(brightness, search_apgd.APGD),
    Network(None, {}),
    Tries(np.zeros(0, int), lambda chosen: {}),
    Numbers(eps=EPS, step_size=0.0, num_steps=6),
    num_subjects=0,
    rows=2,
    title=None,
  )
  assert not len(found.level) and not found.kept.any()
