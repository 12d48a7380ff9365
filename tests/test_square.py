"""Square Attack next to the paper's Algorithms 1 and 2 in plain lines."""

import jax
import jax.numpy as jnp
import numpy as np

from jprotop.attacks import pgd, square
from jprotop.attacks.budget import Budget

EPS, SIDE = 0.1, 8


def test_squares_shrink_by_the_schedule():
  sides = square.sides(10_000, 100, 100)
  at = [1, 12, 52, 202, 502, 1002, 2002, 4002, 6002, 8002]
  shares = 0.8 / 2.0 ** np.arange(10)
  assert sides[at].tolist() == np.rint(100 * np.sqrt(shares)).tolist()
  # The schedule is stretched to the queries that there are.
  assert (square.sides(100, 100, 100)[1:] == sides[1:-99:100]).all()
  assert square.sides(5, 2, 3).max() <= 2 and square.sides(5, 2, 3).min() >= 1


def test_a_square_has_one_sign_a_colour_and_lies_within_the_image():
  keys = jax.random.split(jax.random.key(0), 64)
  drawn = jax.vmap(lambda key: square.square(key, jnp.array(6), SIDE, SIDE))(keys)
  corners = set()
  for signs in np.asarray(drawn):
    rows, columns = np.nonzero(signs[..., 0])
    inside = signs[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert inside.shape == (6, 6, 3) and (np.abs(signs).sum() == 3 * 36)
    assert (inside == inside[0, 0]).all() and (np.abs(inside) == 1).all()
    corners.add((rows.min(), columns.min()))
  # Every place is possible, also those that touch the border.
  assert corners == {(top, left) for top in range(3) for left in range(3)}


def test_square_attack_is_the_papers_random_search():
  """The same draws, accepted and projected by plain lines, image by image."""
  rng = np.random.default_rng(0)
  image = rng.uniform(0, 1, (2, SIDE, SIDE, 3)).astype(np.float32)
  mask, weights = rng.random((2, SIDE, SIDE)) < 0.7, rng.normal(size=image.shape)
  weights = weights.astype(np.float32)
  keys = jax.random.split(jax.random.key(1), 2)
  numbers = square.numbers_of(Budget(eps=EPS, num_steps=12), SIDE)
  room = pgd.Room(jnp.asarray(image), jnp.asarray(mask))
  # The second row has reached its goal as soon as it is a little better than the image.
  goal = (weights * image).sum((1, 2, 3)) + np.array([1e9, 0.5], np.float32)

  def raised(x):
    value = (weights * x).sum((1, 2, 3))
    return value, value > goal

  found = square.run(square.init(room, numbers, keys), raised, room, numbers)
  for i in range(2):
    best, value, looks = image[i], -np.inf, 0
    for look, side in enumerate(square.sides(12, SIDE, SIDE)):
      key = jax.random.fold_in(keys[i], look)
      if look:
        signs = np.asarray(square.square(key, jnp.asarray(side), SIDE, SIDE))
      else:
        signs = np.repeat(np.asarray(square.stripes(key, SIDE)), SIDE, axis=0)
      wanted = np.where(signs == 0, best, image[i] + EPS * signs)
      tried = np.clip(np.where(mask[i][..., None], wanted, image[i]), 0, 1)
      looks += 1
      if (tried * weights[i]).sum() > value:
        best, value = tried, (tried * weights[i]).sum()
      if value > goal[i]:
        break
    np.testing.assert_allclose(found.x[i], best, atol=1e-6)
    assert found.looks[i] == looks and found.reached[i] == (i == 1)
  assert looks < 12
