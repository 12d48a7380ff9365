"""Attacks that end with success: what they raise, and when an image has had enough.

A goal says of images what is to be raised, one value an image, and whether the image is where the
attack wants it. From then on that image stays as it is; an attack ends when no image is left.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jprotop.attacks import pgd
from jprotop.attacks.budget import Numbers

# Images to values to be raised, and whether the goal is reached, one of each an image.
Goal = Callable[[Float[Array, "B H W 3"]], tuple[Float[Array, " B"], Bool[Array, " B"]]]


@flax.struct.dataclass
class State(pgd.State):
  """Where an attack with a goal stands.

  Attributes:
    looks: how often the network saw the image so far.
    reached: whether the goal is reached, at `x`, which no longer changes.
  """

  looks: Int[Array, "*B"]
  reached: Bool[Array, "*B"]


def pick(rows: Bool[Array, " B"], a: Array, b: Array) -> Array:
  """a [B, ...] in the rows that are true, b in the others."""
  return jnp.where(rows.reshape(-1, *[1] * (a.ndim - 1)), a, b)


def run(step: Callable, state: Any, goal: Goal, room: pgd.Room, numbers: Numbers, most: int) -> Any:
  """The state up to `numbers.num_steps` steps on: a row stops at its goal, or after `most` looks.

  Args:
    step: (state, goal, room, numbers) to the next state of all rows.
    most: looks in all, of which this call may take some.
  """

  def going(state):
    return ~state.reached & (state.looks < most)

  def keep_on(carry):
    state, done = carry
    return (done < numbers.num_steps) & going(state).any()

  def once(carry):
    state, done = carry
    rows, new = going(state), step(state, goal, room, numbers)
    return jax.tree.map(lambda a, b: pick(rows, a, b), new, state), done + 1

  return jax.lax.while_loop(keep_on, once, (state, 0))[0]
