"""APGD (Croce and Hein 2020, Algorithm 1): PGD with momentum that halves its own steps.

Steps begin at 2 eps. At checkpoints, which come more often towards the end, the step is halved and
the search goes on from where the objective was highest, if the objective rose in fewer than three
quarters of the steps since the last checkpoint, or if neither the step nor the highest value has
changed since then. Two things are ours: the picture that is kept is the best by the success test
(`search`), and the start is noise U(-eps, eps).
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jprotop.attacks import pgd, search
from jprotop.attacks.budget import Numbers
from jprotop.attacks.pgd import Room
from jprotop.attacks.search import of_rows

_MOMENTUM = 0.75  # alpha: how much of a step is the gradient's
_RISING = 0.75  # rho
# Of all steps, in percent: the first checkpoint, by how much each period is shorter, the shortest.
_FIRST, _SHORTER, _SHORTEST = 22, 3, 6


@flax.struct.dataclass
class State(search.State):
  """Where APGD stands, in the terms of Algorithm 1.

  Attributes:
    x_before, value_before: the iterate before x, and its value.
    step_size: eta.
    highest, x_highest, gradient_highest: f_max, x_max, and the gradient there.
    highest_then, halved_then: at the last checkpoint, f_max, and whether the step was halved.
    rises: since then, steps that raised the value.
    percent, percent_before: of all steps, where the next and the last checkpoint are.
  """

  x_before: Float[Array, "B H W 3"]
  value_before: Float[Array, " B"]
  step_size: Float[Array, " B"]
  highest: Float[Array, " B"]
  x_highest: Float[Array, "B H W 3"]
  gradient_highest: Float[Array, "B H W 3"]
  highest_then: Float[Array, " B"]
  halved_then: Bool[Array, " B"]
  rises: Int[Array, " B"]
  percent: Int[Array, " B"]
  percent_before: Int[Array, " B"]


def init(room: Room, numbers: Numbers, keys: Key[Array, " B"]) -> State:
  """At a random start. N steps are N + 1 looks: the first is at the start."""
  start = pgd.init(room, numbers, keys).x
  count = len(start)
  lowest = jnp.full(count, -jnp.inf)
  return State(
    **search.fields(start, keys, numbers.num_steps + 1),
    x_before=start,
    value_before=lowest,
    step_size=jnp.full(count, 2.0 * numbers.eps),
    highest=lowest,
    x_highest=start,
    gradient_highest=jnp.zeros_like(start),
    highest_then=lowest,
    halved_then=jnp.zeros(count, bool),
    rises=jnp.zeros(count, jnp.int32),
    percent=jnp.full(count, _FIRST, jnp.int32),
    percent_before=jnp.zeros(count, jnp.int32),
  )


def _at(percent: Int[Array, " B"], num_steps: Int[Array, " B"]) -> Int[Array, " B"]:
  """The step at which a checkpoint is: ceil(p N)."""
  return -(-percent * num_steps // 100)


def step(state: State, objective: search.Objective, room: Room, numbers: Numbers) -> State:
  """A look at x, and the next iterate."""

  def total(x):
    seen = objective(x)
    return jnp.sum(seen.value), seen

  gradient, seen = jax.grad(total, has_aux=True)(state.x)
  done = state.looks  # steps that led to x
  state = search.note(state, seen)
  higher = seen.value > state.highest
  state = dataclasses.replace(
    state,
    rises=state.rises + ((done > 0) & (seen.value > state.value_before)),
    value_before=seen.value,
    highest=jnp.where(higher, seen.value, state.highest),
    x_highest=of_rows(higher, state.x, state.x_highest),
    gradient_highest=of_rows(higher, gradient, state.gradient_highest),
  )
  first = done == 0
  state = dataclasses.replace(
    state, highest_then=jnp.where(first, state.highest, state.highest_then)
  )
  state, gradient = _checkpoint(state, gradient, done)
  return _move(state, gradient, first, room, numbers)


def _checkpoint(
  state: State, gradient: Float[Array, "B H W 3"], done: Int[Array, " B"]
) -> tuple[State, Float[Array, "B H W 3"]]:
  """Halves the step where it is time and one of the two conditions holds."""
  num_steps = state.most - 1
  here, before = _at(state.percent, num_steps), _at(state.percent_before, num_steps)
  due = (done == here) & (done > 0)
  too_few = state.rises < _RISING * (here - before)
  stuck = ~state.halved_then & (state.highest == state.highest_then)
  halve = due & (too_few | stuck)
  period = jnp.maximum(state.percent - state.percent_before - _SHORTER, _SHORTEST)
  moved_on = dataclasses.replace(
    state,
    step_size=jnp.where(halve, state.step_size / 2, state.step_size),
    x=of_rows(halve, state.x_highest, state.x),
    value_before=jnp.where(halve, state.highest, state.value_before),
    highest_then=jnp.where(due, state.highest, state.highest_then),
    halved_then=jnp.where(due, halve, state.halved_then),
    rises=jnp.where(due, 0, state.rises),
    percent=jnp.where(due, state.percent + period, state.percent),
    percent_before=jnp.where(due, state.percent, state.percent_before),
  )
  return moved_on, of_rows(halve, state.gradient_highest, gradient)


def _move(
  state: State,
  gradient: Float[Array, "B H W 3"],
  first: Bool[Array, " B"],
  room: Room,
  numbers: Numbers,
) -> State:
  """The next iterate: a projected step, and a quarter of the step before it."""
  x, eta = state.x, state.step_size[:, None, None, None]

  def inside(y):
    return pgd.project(y, room.image, room.pixels, numbers.eps)

  z = inside(x + eta * jnp.sign(gradient))
  follow = inside(x + _MOMENTUM * (z - x) + (1 - _MOMENTUM) * (x - state.x_before))
  return dataclasses.replace(state, x=of_rows(first, z, follow), x_before=x)


APGD = search.method(init, step)
