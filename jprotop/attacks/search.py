"""What attacks that search have in common: they look at a picture, keep the best, and go on.

A step looks at `x`, notes what it sees, and proposes the next picture. The best picture is chosen
by the success test itself, not by what is raised, and where an attack has fully succeeded the image
stays as it is. So its row can leave (`search_rows.drive_rows`).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TypeVar

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped, UInt32

from jprotop.attacks import pgd
from jprotop.attacks.budget import Numbers
from jprotop.attacks.pgd import Room

# How far an attack has come; of an image that was not looked at yet, nothing is known.
UNSEEN, FAILED, MOVED, KEPT = -1, 0, 1, 2


@flax.struct.dataclass
class Seen:
  """What is seen of pictures.

  Attributes:
    value: what is raised.
    margin: positive where the attack has succeeded.
    kept: whether nothing more is wanted of such a picture: where explanations are attacked, the
      class is predicted that is predicted for the clean image.
  """

  value: Float[Array, " B"]
  margin: Float[Array, " B"]
  kept: Bool[Array, " B"]

  @property
  def level(self) -> Int[Array, " B"]:
    """FAILED, MOVED (the margin is positive), or KEPT (and nothing more is wanted)."""
    moved = self.margin > 0
    return jnp.where(moved, jnp.where(self.kept, KEPT, MOVED), FAILED).astype(jnp.int32)


Objective = Callable[[Float[Array, "B H W 3"]], Seen]


@flax.struct.dataclass
class State(pgd.State):
  """Where a search stands; `x` is what the next step looks at.

  Attributes:
    key: raw random keys, one an image.
    looks, most: how many pictures were looked at, and how many may be.
    level, margin: of the best picture so far, `best`.
  """

  key: UInt32[Array, "B 2"]
  looks: Int[Array, " B"]
  most: Int[Array, " B"]
  level: Int[Array, " B"]
  margin: Float[Array, " B"]
  best: Float[Array, "B H W 3"]

  @property
  def found(self) -> Float[Array, "*B H W 3"]:
    """The attacked images: the best by the success test."""
    return self.best

  @property
  def done(self) -> Bool[Array, "*B"]:
    """Whether there is nothing left to find, or no look left."""
    return (self.level == KEPT) | (self.looks >= self.most)


AnyState = TypeVar("AnyState", bound=State)


def fields(
  start: Float[Array, "B H W 3"], keys: Key[Array, " B"], most: int | Int[Array, ""]
) -> dict[str, Array]:
  """The fields of a State that has seen nothing."""
  count = len(start)
  return {
    "x": start,
    "key": jax.random.key_data(keys),
    "looks": jnp.zeros(count, jnp.int32),
    "most": jnp.full(count, most, jnp.int32),
    "level": jnp.full(count, UNSEEN, jnp.int32),
    "margin": jnp.full(count, -jnp.inf),
    "best": start,
  }


def of_rows(
  rows: Bool[Array, " B"], new: Shaped[Array, "B ..."], old: Shaped[Array, "B ..."]
) -> Shaped[Array, "B ..."]:
  """`new` in some rows, `old` in the others."""
  return jnp.where(rows.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def nan_is_worst(values: Float[Array, " B"]) -> Float[Array, " B"]:
  """A value that is not a number says nothing for a picture."""
  return jnp.where(jnp.isnan(values), -jnp.inf, values)


def note(state: AnyState, seen: Seen) -> AnyState:
  """The state after one more look, which replaces the best picture if it is better.

  Better is a higher level, and of equals the larger margin.
  """
  level, margin = seen.level, nan_is_worst(seen.margin)
  better = (level > state.level) | ((level == state.level) & (margin > state.margin))
  return dataclasses.replace(
    state,
    looks=state.looks + 1,
    level=jnp.where(better, level, state.level),
    margin=jnp.where(better, margin, state.margin),
    best=of_rows(better, state.x, state.best),
  )


def fresh_keys(state: State) -> Key[Array, " B"]:
  """A random key an image for the step that has looked `looks` times."""
  keys = jax.random.wrap_key_data(state.key)
  return jax.vmap(jax.random.fold_in)(keys, state.looks)


def _run(step: Callable, state: State, objective: Objective, room: Room, numbers: Numbers) -> State:
  """The state `numbers.num_steps` looks on, or fewer: images that are done stay as they are."""

  def keep_on(carry):
    state, taken = carry
    return (taken < numbers.num_steps) & ~state.done.all()

  def once(carry):
    state, taken = carry
    new = step(state, objective, room, numbers)
    kept = jax.tree.map(functools.partial(of_rows, ~state.done), new, state)
    return kept, taken + 1

  return jax.lax.while_loop(keep_on, once, (state, 0))[0]


def method(init: Callable, step: Callable) -> pgd.Method:
  """A search as the method of an attack.

  Args:
    init: (room, numbers, keys) to a State, of which `numbers.num_steps` says how long it searches.
    step: (state, objective, room, numbers) to the State one look on.
  """
  return pgd.Method(init, functools.partial(_run, step))
