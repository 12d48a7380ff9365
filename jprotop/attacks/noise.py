"""Random noise that is drawn anew for each look: the control of attacks that keep the best of many.

Every pixel of the mask is changed by eps, up or down.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jprotop.attacks import pgd, search
from jprotop.attacks.budget import Numbers
from jprotop.attacks.pgd import Room


def _signs(room: Room, numbers: Numbers, keys: Key[Array, " B"]) -> Float[Array, "B H W 3"]:
  shape = room.image.shape[1:]
  signs = jax.vmap(lambda key: jax.random.rademacher(key, shape, jnp.float32))(keys)
  return pgd.project(room.image + numbers.eps * signs, room.image, room.pixels, numbers.eps)


def init(room: Room, numbers: Numbers, keys: Key[Array, " B"]) -> search.State:
  """At random signs; `numbers.num_steps` are the looks."""
  return search.State(**search.fields(_signs(room, numbers, keys), keys, numbers.num_steps))


def step(
  state: search.State, objective: search.Objective, room: Room, numbers: Numbers
) -> search.State:
  """A look at x, and other signs."""
  state = search.note(state, objective(state.x))
  return dataclasses.replace(state, x=_signs(room, numbers, search.fresh_keys(state)))


NOISE = search.method(init, step)
