"""Square Attack (Andriushchenko et al., ECCV 2020, Algorithms 1 and 2), l-infinity: no gradients.

It starts from vertical stripes of -eps and eps, then sets squares to -eps or eps, one a look and a
sign a colour, and keeps what makes the margin larger; squares become smaller. It shows where
gradients are masked: what it moves and gradients do not.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jprotop.attacks import pgd, search
from jprotop.attacks.budget import Numbers
from jprotop.attacks.pgd import Room

# The share of pixels in the first squares, which is halved after so many of 10,000 looks. The
# schedule is the paper's, the share that of AutoAttack (Croce and Hein 2020), which is larger.
_FIRST_SHARE = 0.8
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_SCALE = 10_000


def share_of_pixels(number: Int[Array, " B"], most: Int[Array, " B"]) -> Float[Array, " B"]:
  """p: the share of the pixels that a square covers, of its number, from 0, among `most`."""
  # floor(number * scale / most) > after, in numbers that do not overflow.
  beyond = jnp.array(_HALVED_AFTER)[None] + 1
  whole, rest = jnp.divmod(most[:, None], _SCALE)
  halved = number[:, None] >= beyond * whole - (-beyond * rest // _SCALE)
  return _FIRST_SHARE / 2.0 ** halved.sum(axis=1)


def init(room: Room, numbers: Numbers, keys: Key[Array, " B"]) -> search.State:
  """At vertical stripes, one pixel wide; `numbers.num_steps` are the looks."""
  width = room.image.shape[2]
  signs = jax.vmap(lambda key: jax.random.rademacher(key, (1, width, 3)))(keys)
  start = pgd.project(room.image + numbers.eps * signs, room.image, room.pixels, numbers.eps)
  return search.State(**search.fields(start, keys, numbers.num_steps))


def places(mask: Bool[Array, "H W"], side: Int[Array, ""]) -> Int[Array, "H W"]:
  """How many pixels of the mask a square of that side covers, by its corner; 0: it sticks out."""
  height, width = mask.shape
  above = jnp.pad(jnp.cumsum(jnp.cumsum(mask.astype(jnp.int32), axis=0), axis=1), ((1, 0), (1, 0)))
  top, left = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
  bottom, right = jnp.minimum(top + side, height), jnp.minimum(left + side, width)
  covered = above[bottom, right] - above[top, right] - above[bottom, left] + above[top, left]
  return jnp.where((top + side <= height) & (left + side <= width), covered, 0)


def squares(
  keys: Key[Array, " B"], mask: Bool[Array, "B H W"], share: Float[Array, " B"]
) -> tuple[Bool[Array, "B H W"], Float[Array, "B 1 1 3"]]:
  """A random square an image, and its sign in each colour.

  The square has that share of the mask's area, at least one pixel, and lies within the image. A
  place is as likely as it covers pixels of the mask: over the whole image all are alike, as in the
  paper, and over a mask that is small, squares anywhere would mostly miss it.
  """
  height, width = mask.shape[1:]
  side = jnp.round(jnp.sqrt(share * mask.sum((1, 2)))).astype(jnp.int32)
  side = jnp.clip(side, 1, min(height, width))

  def draw(key, mask, side):
    where, sign = jax.random.split(key)
    place = jax.random.categorical(where, jnp.log(places(mask, side).reshape(-1)))
    rows = jnp.arange(height)[:, None] - place // width
    columns = jnp.arange(width)[None, :] - place % width
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


SQUARE = search.method(init, step)
