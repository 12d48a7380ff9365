"""Square Attack next to the paper's Algorithms 1 and 2 in plain lines."""

import jax
import jax.numpy as jnp
import numpy as np

from jprotop.attacks import square
from jprotop.attacks.budget import Numbers
from jprotop.attacks.pgd import Room
from jprotop.attacks.search import Seen

EPS, SIDE = 0.1, 8
squares = jax.jit(square.squares)


def test_squares_shrink_as_published():
  most = np.repeat([7, 1000, 5000, 10_000, 1_000_000], 40)
  number = (np.tile(np.linspace(0, 0.999, 40), 5) ** 3 * most).astype(int)
  found = square.share_of_pixels(jnp.asarray(number), jnp.asarray(most))
  at = {10: 1, 50: 2, 200: 3, 500: 4, 1000: 5, 2000: 6, 4000: 7, 6000: 8, 8000: 9}
  scaled = number * 10_000 // most
  halved = [max([n for after, n in at.items() if one > after] or [0]) for one in scaled]
  assert set(halved) == set(range(10))
  np.testing.assert_allclose(found, 0.8 / 2.0 ** np.array(halved), rtol=1e-6)


def drawn(mask, share, count):
  """Squares [count, H, W] and their signs, over one mask."""
  keys = jax.random.split(jax.random.key(0), count)
  masks = jnp.broadcast_to(jnp.asarray(mask), (count, *mask.shape))
  return [np.asarray(a) for a in squares(keys, masks, jnp.full(count, share))]


def test_over_a_whole_image_every_place_within_it_is_as_likely():
  """As in the paper; squares have one sign a colour."""
  inside, signs = drawn(np.ones((SIDE, SIDE), bool), 36 / SIDE**2, 900)
  corners = np.zeros((SIDE, SIDE), int)
  for one in inside:
    rows, columns = np.nonzero(one)
    assert one.sum() == 36 and np.ptp(rows) == np.ptp(columns) == 5
    corners[rows.min(), columns.min()] += 1
  assert corners.sum() == corners[:3, :3].sum()
  assert (np.abs(corners[:3, :3] - 100) < 40).all()  # more than four standard deviations
  assert signs.shape == (900, 1, 1, 3) and set(np.unique(signs)) == {-1, 1}


def test_over_a_mask_a_place_is_as_likely_as_it_covers_the_mask():
  mask = np.zeros((5, 6), bool)
  mask[0, 0] = mask[0, 1] = mask[4, 3] = mask[4, 4] = True
  inside, _ = drawn(mask, 1.0, 2000)  # 2 x 2
  found, wanted = np.zeros((4, 5)), np.zeros((4, 5))
  for one in inside:
    rows, columns = np.nonzero(one)
    assert one.sum() == 4 and np.ptp(rows) == np.ptp(columns) == 1
    found[rows.min(), columns.min()] += 1
  for top, left in np.ndindex(4, 5):
    wanted[top, left] = mask[top : top + 2, left : left + 2].sum()
  assert not found[wanted == 0].any()
  wanted *= 2000 / wanted.sum()
  assert (np.abs(found - wanted) <= 5 * np.sqrt(wanted)).all()


def test_a_square_is_no_smaller_than_a_pixel_and_no_larger_than_the_image():
  mask = np.ones((2, 9), bool)
  assert set(drawn(mask, 1e-6, 20)[0].sum((1, 2))) == {1}
  assert set(drawn(mask, 0.8, 20)[0].sum((1, 2))) == {4}
  mask[:] = False
  mask[0, 0] = True
  assert drawn(mask, 0.1, 20)[0][:, 0, 0].all()


def test_square_attack_is_the_papers_random_search():
  """The same draws, accepted and projected by plain lines, image by image."""
  rng = np.random.default_rng(0)
  image = rng.uniform(0, 1, (2, SIDE, SIDE, 3)).astype(np.float32)
  mask = rng.random((2, SIDE, SIDE)) < 0.7
  weights = rng.normal(size=image.shape).astype(np.float32)
  keys = jax.random.split(jax.random.key(1), 2)
  numbers = Numbers(eps=EPS, step_size=0.0, num_steps=30)
  room = Room(jnp.asarray(image), jnp.asarray(mask))
  # The second row succeeds as soon as it is a little better than the image.
  enough = (weights * image).sum((1, 2, 3)) + np.array([1e3, 1.5], np.float32)

  def objective(x):
    margin = (weights * x).sum((1, 2, 3)) - enough
    return Seen(jnp.zeros(2), margin, jnp.ones(2, bool))

  begun = square.init(room, numbers, keys)
  found = square.SQUARE.run(begun, objective, room, numbers)
  change, borders = np.asarray(begun.x) - image, np.stack([image - EPS, image + EPS]).clip(0, 1)
  assert np.isclose(begun.x, borders).any(0)[mask].all() and not change[~mask].any()
  for i in range(2):
    best, value, looks, tried = image[i], -np.inf, 0, np.asarray(begun.x[i])
    while looks < 30 and value <= enough[i]:
      looks += 1
      if (tried * weights[i]).sum() > value:
        best, value = tried, (tried * weights[i]).sum()
      key = jax.random.fold_in(keys[i], looks)
      share = square.share_of_pixels(jnp.array([looks - 1]), jnp.array([30]))
      inside, signs = squares(key[None], room.mask[i][None], share)
      wanted = np.where(np.asarray(inside[0])[..., None], image[i] + EPS * signs[0], best)
      tried = np.clip(np.where(mask[i][..., None], wanted, image[i]), 0, 1)
    np.testing.assert_allclose(found.found[i], best, atol=1e-6)
    assert found.looks[i] == looks
  assert 1 < looks < 30
