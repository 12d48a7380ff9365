"""Square Attack (Andriushchenko et al., ECCV 2020, Algorithms 1 and 2), l-infinity: no gradients.

It starts from vertical stripes of -eps and eps. Then it draws a square, and a sign for each colour
in it; what raises the value stays. Squares become smaller on a schedule.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt32

from jprotop.attacks import budget, goal, pgd
from jprotop.attacks.goal import Goal, pick

# The share of pixels in the first squares, which is halved after so many of 10,000 queries. The
# schedule is the paper's, the share that of AutoAttack, whose squares start larger.
_FIRST_SHARE = 0.8
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def sides(num_queries: int, height: int, width: int) -> Int[np.ndarray, " {num_queries}"]:
  """The side of each query's square in pixels; the first query has none, but the stripes."""
  scaled = 10_000 * np.arange(-1, num_queries - 1) // max(num_queries, 1)
  halvings = (scaled[:, None] > np.array(_HALVED_AFTER)).sum(axis=1)
  side = np.rint(np.sqrt(_FIRST_SHARE / 2.0**halvings * height * width))
  return np.clip(side, 1, min(height, width)).astype(int)


@flax.struct.dataclass(kw_only=True)
class Numbers(budget.Numbers):
  """The same as any attack's; `num_steps` counts queries.

  Attributes:
    sides: `sides` of the number of queries.
  """

  sides: Int[Array, " queries"]


def numbers_of(given: budget.Budget, image_size: int) -> Numbers:
  """What the programs take of a budget, whose steps are queries; the step size means nothing."""
  fields = {f.name: getattr(given.numbers(), f.name) for f in dataclasses.fields(budget.Numbers)}
  return Numbers(**fields, sides=jnp.asarray(sides(given.num_steps, image_size, image_size)))


@flax.struct.dataclass
class State(goal.State):
  """Where a Square attack stands; `x` is the best image so far.

  Attributes:
    value: of `x`.
    key: raw random keys.
  """

  value: Float[Array, "*B"]
  key: UInt32[Array, "*B 2"]


def init(room: pgd.Room, numbers: Numbers, keys: Key[Array, " B"]) -> State:
  """At the image, which the first query's stripes replace."""
  rows = len(room.image)
  return State(
    x=room.image,
    looks=jnp.zeros(rows, int),
    reached=jnp.zeros(rows, bool),
    value=jnp.full(rows, -jnp.inf),
    key=jax.random.key_data(keys),
  )


def stripes(key: Key[Array, ""], width: int) -> Float[Array, "1 {width} 3"]:
  """A sign for each column and colour."""
  return jax.random.rademacher(key, (1, width, 3), jnp.float32)


def square(
  key: Key[Array, ""], side: Int[Array, ""], height: int, width: int
) -> Float[Array, "{height} {width} 3"]:
  """A sign for each colour inside a square whose place is drawn, 0 around it."""
  place, signs = jax.random.split(key)
  free = jnp.stack([height - side, width - side]) + 1
  top, left = jnp.floor(jax.random.uniform(place, (2,)) * free).astype(int)
  rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
  inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
  return inside[..., None] * jax.random.rademacher(signs, (1, 1, 3), jnp.float32)


def step(state: State, raised: Goal, room: pgd.Room, numbers: Numbers) -> State:
  """One query: a changed image, which replaces `x` if it is better, or has reached the goal."""
  height, width = room.image.shape[1:3]

  def draw(key, look, side):
    key = jax.random.fold_in(jax.random.wrap_key_data(key), look)
    first = jnp.broadcast_to(stripes(key, width), (height, width, 3))
    return jnp.where(look == 0, first, square(key, side, height, width))

  signs = jax.vmap(draw)(state.key, state.looks, numbers.sides[state.looks])
  # From anywhere in the ball, twice eps leads to its border.
  tried = state.x + 2 * numbers.eps * signs * room.pixels
  tried = pgd.project(tried, room.image, room.pixels, numbers.eps)
  value, reached = raised(tried)
  better = (value > state.value) | reached
  return State(
    x=pick(better, tried, state.x),
    looks=state.looks + 1,
    reached=reached,
    value=jnp.where(better, value, state.value),
    key=state.key,
  )


def run(state: State, raised: Goal, room: pgd.Room, numbers: Numbers) -> State:
  """The state `numbers.num_steps` queries on; a row ends with its goal or its last query."""
  return goal.run(step, state, raised, room, numbers, len(numbers.sides))


METHOD = pgd.Method(init, run)
