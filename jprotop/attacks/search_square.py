"""Attacks without gradients: Square (Andriushchenko et al. 2020), and plain random noise.

Square starts from vertical stripes of -eps and +eps, then sets squares to -eps or +eps, one a look
and a sign a colour, and keeps what makes the margin larger. It shows where gradients are masked:
what it moves and gradients do not. Random noise that is drawn anew for each look is the control of
attacks that choose the best of many pictures.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jprotop.attacks import pgd, search
from jprotop.attacks.budget import Numbers
from jprotop.attacks.pgd import Room

# The share of pixels in the first squares (0.8 in AutoAttack, Croce and Hein 2020), and after which
# of 10,000 looks it is halved, as in the authors' code; other numbers of looks are scaled to that.
_FIRST_SHARE = 0.8
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_SCALE = 10_000


def share_of_pixels(number: Int[Array, " B"], most: Int[Array, " B"]) -> Float[Array, " B"]:
  """p: the share of the pixels that a square covers, of its number, from 0, among `most`."""
  scaled = number * _SCALE // jnp.maximum(most, 1)
  halved = scaled[:, None] > jnp.array(_HALVED_AFTER)[None]
  return _FIRST_SHARE / 2.0 ** halved.sum(axis=1)


def init(room: Room, numbers: Numbers, keys: Key[Array, " B"]) -> search.State:
  """At vertical stripes, one pixel wide; `numbers.num_steps` are the looks."""
  width = room.image.shape[2]
  signs = jax.vmap(lambda key: jax.random.rademacher(key, (1, width, 3)))(keys)
  return _starting_at(room.image + numbers.eps * signs, room, numbers, keys)


def _starting_at(
  x: Float[Array, "B H W 3"], room: Room, numbers: Numbers, keys: Key[Array, " B"]
) -> search.State:
  start = pgd.project(x, room.image, room.pixels, numbers.eps)
  return search.State(**search.fields(start, keys, numbers.num_steps))


def squares(
  keys: Key[Array, " B"], mask: Bool[Array, "B H W"], share: Float[Array, " B"]
) -> tuple[Bool[Array, "B H W"], Float[Array, "B 1 1 3"]]:
  """A random square an image, and its sign in each colour.

  The square has that share of the mask's area, at least one pixel, and is centred on a pixel of the
  mask: over a mask that is small, squares anywhere in the picture would mostly miss it.
  """
  height, width = mask.shape[1:]
  side = jnp.sqrt(share * mask.sum((1, 2)))
  side = jnp.maximum(jnp.round(side).astype(jnp.int32), 1)

  def draw(key, mask, side):
    where, sign = jax.random.split(key)
    pixel = jax.random.categorical(where, jnp.where(mask.reshape(-1), 0.0, -jnp.inf))
    top, left = pixel // width - side // 2, pixel % width - side // 2
    rows, columns = jnp.arange(height)[:, None] - top, jnp.arange(width)[None] - left
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    return inside, jax.random.rademacher(sign, (1, 1, 3), jnp.float32)

  return jax.vmap(draw)(keys, mask, side)


def step(
  state: search.State, objective: search.Objective, room: Room, numbers: Numbers
) -> search.State:
  """A look at x, and one more square on the best picture."""
  state = search.note(state, objective(state.x))
  share = share_of_pixels(state.looks - 1, state.most)
  inside, signs = squares(search.fresh_keys(state), room.mask, share)
  changed = jnp.where(inside[..., None], room.image + numbers.eps * signs, state.best)
  return dataclasses.replace(state, x=pgd.project(changed, room.image, room.pixels, numbers.eps))


def _signs(room: Room, numbers: Numbers, keys: Key[Array, " B"]) -> Float[Array, "B H W 3"]:
  """Every pixel of the mask changed by eps, up or down."""
  shape = room.image.shape[1:]
  signs = jax.vmap(lambda key: jax.random.rademacher(key, shape, jnp.float32))(keys)
  return pgd.project(room.image + numbers.eps * signs, room.image, room.pixels, numbers.eps)


def init_noise(room: Room, numbers: Numbers, keys: Key[Array, " B"]) -> search.State:
  """At random signs of size eps."""
  return _starting_at(_signs(room, numbers, keys), room, numbers, keys)


def step_noise(
  state: search.State, objective: search.Objective, room: Room, numbers: Numbers
) -> search.State:
  """A look at x, and other signs."""
  state = search.note(state, objective(state.x))
  return dataclasses.replace(state, x=_signs(room, numbers, search.fresh_keys(state)))


SQUARE = search.method(init, step)
NOISE = search.method(init_noise, step_noise)
