"""Attacks with a goal over many rows: who reaches it leaves, and the next one takes the place.

`drive` gives every image the same steps. Here the rows of a batch begin and end each at its own
time, so that a few stubborn ones keep nobody waiting, and no step is spent on what is done.
"""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int, Shaped
from tqdm import tqdm

from jprotop import parallel
from jprotop.attacks import goal
from jprotop.attacks.budget import Numbers
from jprotop.attacks.drive import Attack, Shared, begin_batch, go_on_batch
from jprotop.attacks.pgd import Method
from jprotop.prototypes.see import Network

# Steps between two looks at who is done.
_STEPS = 4
# Numbers of rows to their images, raw random keys, and what the objective reads of them.
RowsOf = Callable[[Int[np.ndarray, " n"]], dict[str, Shaped[np.ndarray, "n ..."]]]


def rows_that_reach(
  attack: Attack,
  network: Network,
  rows_of: RowsOf,
  group: Int[np.ndarray, " N"],
  numbers: Numbers,
  *,
  slots: int,
  title: str | None,
) -> Bool[np.ndarray, " N"]:
  """Which of N rows reach the goal of an attack within `numbers.num_steps` looks.

  Args:
    attack: its method's state is a `goal.State`, and its objective gives what a `Goal` gives.
    group: what each row belongs to, such as an image: the first row that reaches the goal ends all
      others of its group, which then do not count.
    slots: rows at once, a multiple of the devices.
    title: of the progress bar; None: there is none.
  """
  reached = np.zeros(len(group), bool)
  queue, batch = _Queue(group, slots), _Batch(attack, network, numbers)
  with tqdm(total=len(group), desc=title, unit="try", disable=title is None) as bar:
    while (fresh := queue.fill()) is not None:
      if fresh.any():
        batch.put(rows_of(queue.row[fresh]), fresh)
      looks, at_goal = batch.go_on()
      queue.end(at_goal, looks >= numbers.num_steps, reached)
      bar.update(queue.num_left() - bar.n)
  return reached


class _Queue:
  """Who waits, and which row is in which slot (-1: none)."""

  def __init__(self, group: Int[np.ndarray, " N"], slots: int):
    self.group, self.over = group, set()
    self.waiting = collections.deque(range(len(group)))
    self.row = np.full(slots, -1)

  def fill(self) -> Bool[np.ndarray, " slots"] | None:
    """Gives free slots to those who wait, and says which ones; None: nobody is left."""
    fresh = np.zeros(len(self.row), bool)
    for slot in np.flatnonzero(self.row < 0):
      while self.waiting and self.group[self.waiting[0]] in self.over:
        self.waiting.popleft()
      if self.waiting:
        self.row[slot], fresh[slot] = self.waiting.popleft(), True
    return fresh if (self.row >= 0).any() else None

  def end(
    self,
    at_goal: Bool[np.ndarray, " slots"],
    at_end: Bool[np.ndarray, " slots"],
    reached: Bool[np.ndarray, " N"],
  ) -> None:
    """Notes who reached the goal, and frees the slots of those and of others who are done."""
    used = self.row >= 0
    for slot in np.flatnonzero(used & at_goal):
      group = self.group[self.row[slot]]
      reached[self.row[slot]] = group not in self.over
      self.over.add(group)
    over = np.array([used[i] and self.group[row] in self.over for i, row in enumerate(self.row)])
    self.row[used & (at_end | over)] = -1

  def num_left(self) -> int:
    """How many rows have been in a slot, or need none any more, and are in none."""
    return len(self.group) - len(self.waiting) - int((self.row >= 0).sum())


class _Batch:
  """The rows in the slots, on the devices."""

  def __init__(self, attack: Attack, network: Network, numbers: Numbers):
    self.numbers = numbers
    some_steps = dataclasses.replace(numbers, num_steps=min(_STEPS, int(numbers.num_steps)))
    self.shared = Shared(parallel.replicate(network), some_steps)
    self.begin = parallel.per_example(_begin, attack.method)
    self.merge = parallel.per_example(_merge)
    self.step = parallel.per_example(go_on_batch, attack.objective, attack.method.run)
    self.rows: dict[str, Any] = {}
    self.state: Any = None

  def put(self, new: dict[str, np.ndarray], fresh: Bool[np.ndarray, " slots"]) -> None:
    """New rows into the slots that say so; the others keep what they have."""
    spread = {name: np.zeros((len(fresh), *a.shape[1:]), a.dtype) for name, a in new.items()}
    for name, array in new.items():
      spread[name][fresh] = array
    rows = parallel.place({**spread, "fresh": fresh}, len(fresh))
    state = self.begin(self.numbers, rows)
    if self.rows:
      both = {"new": (rows, state), "old": (self.rows, self.state)}
      rows, state = self.merge(None, {**both, "fresh": rows["fresh"]})
    self.rows, self.state = rows, state

  def go_on(self) -> tuple[Int[np.ndarray, " slots"], Bool[np.ndarray, " slots"]]:
    """Some steps; how often each row was looked at since it began, and who is at the goal."""
    self.state = self.step(self.shared, {**self.rows, "state": self.state})
    return parallel.unshard((self.state.looks, self.state.reached))


def _begin(method: Method, numbers: Numbers, batch: dict) -> Any:
  """Where a method begins; in a slot without a row there is nothing to do."""
  state: Any = begin_batch(method, numbers, batch)
  return dataclasses.replace(state, reached=~batch["fresh"])


def _merge(_: None, batch: dict) -> tuple[dict, Any]:
  """The new rows where they are fresh, the old ones elsewhere."""
  fresh = batch["fresh"]
  return jax.tree.map(lambda new, old: goal.pick(fresh, new, old), batch["new"], batch["old"])
