"""Auto-PGD (Croce and Hein, ICML 2020, Algorithm 1): signed steps that nobody has to tune.

Steps have momentum, and start at twice eps. At checkpoints the step of a row is halved if it does
not help any more, and the row goes on from its best image. The rule for that, `Pace` and `judge`,
knows nothing of images: any attack that raises one value a row can use it.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jprotop.attacks import budget, goal, pgd
from jprotop.attacks.goal import Goal, pick

# alpha and rho of the paper: how much of a step is new, and which share of steps must help.
_MOMENTUM, _ENOUGH = 0.75, 0.75


def checkpoints(num_steps: int) -> Bool[np.ndarray, " looks"]:
  """At which of the iterates 0 to `num_steps` a step may be halved (Section 3.2).

  w_j = ceil(p_j num_steps), p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06).
  """
  at = np.zeros(num_steps + 1, bool)
  percent, width = 0, 22
  while percent <= 100:
    at[-(-percent * num_steps // 100)] = True
    percent, width = percent + width, max(width - 3, 6)
  return at


@flax.struct.dataclass
class Pace:
  """What the rule for the step remembers of each row.

  Attributes:
    size: of the row's steps.
    last: its value at the iterate before.
    best: its highest value so far; best_then: the same at the last checkpoint.
    steps: since the last checkpoint; raised: how many of these raised the value.
    halved: whether the step was halved at the last checkpoint.
  """

  size: Float[Array, "*B"]
  last: Float[Array, "*B"]
  best: Float[Array, "*B"]
  best_then: Float[Array, "*B"]
  steps: Int[Array, "*B"]
  raised: Int[Array, "*B"]
  halved: Bool[Array, "*B"]


def start(size: float | Float[Array, ""], rows: int) -> Pace:
  """Before the first iterate."""
  lowest = jnp.full(rows, -jnp.inf)
  return Pace(
    size=jnp.full(rows, size, jnp.float32),
    last=jnp.full(rows, jnp.inf),  # The first iterate raises nothing,
    best=lowest,
    best_then=lowest,
    steps=jnp.full(rows, -1),  # for no step leads to it.
    raised=jnp.zeros(rows, int),
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
    value: of the iterate; NaN is worse than any other.
  """
  best = jnp.where(value > pace.best, value, pace.best)
  steps, raised = pace.steps + 1, pace.raised + (value > pace.last)
  too_few = raised < _ENOUGH * steps
  stuck = ~pace.halved & (best == pace.best_then)
  halved = at_checkpoint & (too_few | stuck)
  judged = Pace(
    size=jnp.where(halved, pace.size / 2, pace.size),
    last=value,
    best=best,
    best_then=jnp.where(at_checkpoint, best, pace.best_then),
    steps=jnp.where(at_checkpoint, 0, steps),
    raised=jnp.where(at_checkpoint, 0, raised),
    halved=jnp.where(at_checkpoint, halved, pace.halved),
  )
  return judged, halved


@flax.struct.dataclass(kw_only=True)
class Numbers(budget.Numbers):
  """The same as any attack's. `num_steps` counts looks, one more than there are steps.

  Attributes:
    checkpoints: `checkpoints` of the number of steps.
  """

  checkpoints: Bool[Array, " looks"]


def numbers_of(given: budget.Budget) -> Numbers:
  """What the programs take of a budget; its step size means nothing here."""
  fields = {f.name: getattr(given.numbers(), f.name) for f in dataclasses.fields(budget.Numbers)}
  fields["num_steps"] = given.num_steps + 1
  return Numbers(**fields, checkpoints=jnp.asarray(checkpoints(given.num_steps)))


@flax.struct.dataclass
class State(goal.State):
  """Where Auto-PGD stands.

  Attributes:
    before: the iterate before `x`.
    best: the image of the highest value so far; gradient: the one there.
    pace: of the steps.
  """

  before: Float[Array, "*B H W 3"]
  best: Float[Array, "*B H W 3"]
  gradient: Float[Array, "*B H W 3"]
  pace: Pace

  @property
  def found(self) -> Float[Array, "*B H W 3"]:
    """Where the goal was reached, or else the best image."""
    return jnp.where(self.reached[..., None, None, None], self.x, self.best)


def init(room: pgd.Room, numbers: Numbers, keys: Key[Array, " B"] | None = None) -> State:
  """As `pgd.init`, with a step of twice eps."""
  x = pgd.init(room, numbers, keys).x
  rows = len(x)
  return State(
    x=x,
    looks=jnp.zeros(rows, int),
    reached=jnp.zeros(rows, bool),
    before=x,
    best=x,
    gradient=jnp.zeros_like(x),
    pace=start(2 * numbers.eps, rows),
  )


def step(state: State, raised: Goal, room: pgd.Room, numbers: Numbers) -> State:
  """A look at `x`, and the step from there."""

  def total(x):
    values, reached = raised(x)
    return jnp.sum(values), (values, reached)

  gradient, (values, reached) = jax.grad(total, has_aux=True)(state.x)
  better = values > state.pace.best
  best = pick(better, state.x, state.best)
  best_gradient = pick(better, gradient, state.gradient)
  pace, halved = judge(state.pace, values, numbers.checkpoints[state.looks])
  x = pick(halved, best, state.x)
  signs = jnp.sign(pick(halved, best_gradient, gradient)) * room.pixels
  ahead = pgd.project(x + _columns(pace.size) * signs, room.image, room.pixels, numbers.eps)
  new = _columns(jnp.where(state.looks == 0, 1.0, _MOMENTUM))
  moved = x + new * (ahead - x) + (1 - new) * (x - state.before)
  moved = pgd.project(moved, room.image, room.pixels, numbers.eps)
  return State(
    x=pick(reached, state.x, moved),
    looks=state.looks + 1,
    reached=reached,
    before=x,
    best=best,
    gradient=best_gradient,
    pace=pace,
  )


def _columns(values: Float[Array, " B"]) -> Float[Array, "B 1 1 1"]:
  return values[:, None, None, None]


def run(state: State, raised: Goal, room: pgd.Room, numbers: Numbers) -> State:
  """The state `numbers.num_steps` looks on; a row ends with its goal or its last step."""
  return goal.run(step, state, raised, room, numbers, len(numbers.checkpoints))


METHOD = pgd.Method(init, run)
