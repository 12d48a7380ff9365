"""APGD (Croce and Hein 2020, Algorithm 1): PGD with momentum that halves its own steps.

Steps begin at 2 eps. At checkpoints, which come more often towards the end, the step of an image is
halved if it does not help any more, and the image goes on from where the objective was highest. The
rule for that, `Pace` and `judge`, knows nothing of images. Two things are ours: the picture that is
kept is the best by the success test (`search`), and the start is noise U(-eps, eps).
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

# alpha and rho of the paper: how much of a step is new, and which share of steps must help.
_MOMENTUM, _ENOUGH = 0.75, 0.75


def _percents() -> tuple[int, ...]:
  """p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), in percent."""
  percents, width = [0], 22
  while percents[-1] + width <= 100:
    percents.append(percents[-1] + width)
    width = max(width - 3, 6)
  return tuple(percents)


_PERCENTS = _percents()


def is_checkpoint(step: Int[Array, " B"], num_steps: Int[Array, " B"]) -> Bool[Array, " B"]:
  """Whether the step may be halved after so many of N steps: at ceil(p_j N) (Section 3.2)."""
  at = -(-jnp.array(_PERCENTS)[None] * num_steps[:, None] // 100)
  return (at == step[:, None]).any(axis=1)


@flax.struct.dataclass
class Pace:
  """What the rule for the step remembers of each row.

  Attributes:
    size: eta, of the row's steps.
    last: the value of the iterate before.
    best: f_max, the highest value so far; best_then: the same at the last checkpoint.
    steps: since the last checkpoint; raised: how many of these raised the value.
    halved: whether the step was halved at the last checkpoint.
  """

  size: Float[Array, " B"]
  last: Float[Array, " B"]
  best: Float[Array, " B"]
  best_then: Float[Array, " B"]
  steps: Int[Array, " B"]
  raised: Int[Array, " B"]
  halved: Bool[Array, " B"]


def start(size: float | Float[Array, ""], rows: int) -> Pace:
  """Before the first iterate, to which no step leads, so that it raises and repeats nothing."""
  return Pace(
    size=jnp.full(rows, size, jnp.float32),
    last=jnp.full(rows, jnp.inf),
    best=jnp.full(rows, -jnp.inf),
    best_then=jnp.full(rows, jnp.nan),
    steps=jnp.full(rows, -1, jnp.int32),
    raised=jnp.zeros(rows, jnp.int32),
    halved=jnp.zeros(rows, bool),
  )


def judge(
  pace: Pace, value: Float[Array, " B"], at_checkpoint: Bool[Array, " B"]
) -> tuple[Pace, Bool[Array, " B"]]:
  """The pace after an iterate, and which rows are to go on from their best one, with half a step.

  These are rows at a checkpoint where, since the last one, less than 3/4 of the steps raised the
  value (Condition 1), or nothing better was found though the step was not halved there
  (Condition 2).

  Args:
    value: of the iterate; NaN is as bad as can be.
  """
  value = search.nan_is_worst(value)
  best = jnp.maximum(pace.best, value)
  steps, raised = pace.steps + 1, pace.raised + (value > pace.last)
  too_few = raised < _ENOUGH * steps
  stuck = ~pace.halved & (best == pace.best_then)
  halved = at_checkpoint & (too_few | stuck)
  judged = Pace(
    size=jnp.where(halved, pace.size / 2, pace.size),
    last=jnp.where(halved, best, value),
    best=best,
    best_then=jnp.where(at_checkpoint, best, pace.best_then),
    steps=jnp.where(at_checkpoint, 0, steps),
    raised=jnp.where(at_checkpoint, 0, raised),
    halved=jnp.where(at_checkpoint, halved, pace.halved),
  )
  return judged, halved


@flax.struct.dataclass
class State(search.State):
  """Where APGD stands.

  Attributes:
    x_before: the iterate before x.
    x_highest, gradient_highest: x_max, where the value was highest, and the gradient there.
    pace: of the steps.
  """

  x_before: Float[Array, "B H W 3"]
  x_highest: Float[Array, "B H W 3"]
  gradient_highest: Float[Array, "B H W 3"]
  pace: Pace


def init(room: Room, numbers: Numbers, keys: Key[Array, " B"]) -> State:
  """At a random start. N steps are N + 1 looks: the first is at the start."""
  begun = pgd.init(room, numbers, keys).x
  return State(
    **search.fields(begun, keys, numbers.num_steps + 1),
    x_before=begun,
    x_highest=begun,
    gradient_highest=jnp.zeros_like(begun),
    pace=start(2.0 * numbers.eps, len(begun)),
  )


def step(state: State, objective: search.Objective, room: Room, numbers: Numbers) -> State:
  """A look at x, and the next iterate."""

  def total(x):
    seen = objective(x)
    return jnp.sum(seen.value), seen

  gradient, seen = jax.grad(total, has_aux=True)(state.x)
  higher = seen.value > state.pace.best
  x_highest = of_rows(higher, state.x, state.x_highest)
  gradient_highest = of_rows(higher, gradient, state.gradient_highest)
  # Before a look, there are as many steps that led to x as there were looks.
  due = is_checkpoint(state.looks, state.most - 1)
  pace, halved = judge(state.pace, seen.value, due)
  state = dataclasses.replace(
    search.note(state, seen),
    x=of_rows(halved, x_highest, state.x),
    x_highest=x_highest,
    gradient_highest=gradient_highest,
    pace=pace,
  )
  return _move(state, of_rows(halved, gradient_highest, gradient), room, numbers)


def _move(state: State, gradient: Float[Array, "B H W 3"], room: Room, numbers: Numbers) -> State:
  """The next iterate: a projected step, and, but for the first, a quarter of the step before it."""

  def inside(y):
    return pgd.project(y, room.image, room.pixels, numbers.eps)

  def columns(values):
    return values[:, None, None, None]

  x = state.x
  z = inside(x + columns(state.pace.size) * jnp.sign(gradient))
  new = columns(jnp.where(state.looks == 1, 1.0, _MOMENTUM))
  ahead = inside(x + new * (z - x) + (1 - new) * (x - state.x_before))
  return dataclasses.replace(state, x=ahead, x_before=x)


APGD = search.method(init, step)
