"""How searches are run over many tries: a row leaves when it is done, and the next takes its place.

`drive.drive` takes every image through all steps. Here a try ends when its subject has succeeded in
this or in another try, so that devices are busy with what is still open.
"""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, Int, Shaped
from tqdm import tqdm

from jprotop import parallel
from jprotop.attacks import search
from jprotop.attacks.budget import Numbers
from jprotop.attacks.drive import Attack, Shared, begin_batch, go_on_batch
from jprotop.attacks.pgd import Method
from jprotop.attacks.search import State, of_rows
from jprotop.prototypes.see import Network

_LOOKS = 8  # Of a program, after which rows may leave; on a CPU fewer (see parallel.loop_slices).


@dataclasses.dataclass(frozen=True)
class Tries:
  """What is tried, in order: M tries of N subjects.

  Attributes:
    subject: of each try. Where it succeeds fully, the subject's other tries are over.
    arrays: from places in `subject` to the arrays of these tries, by name: images, raw random keys,
      and what the objective reads; perhaps `pixels`.
  """

  subject: Int[np.ndarray, " M"]
  arrays: Callable[[Int[np.ndarray, " n"]], dict[str, Shaped[np.ndarray, "n ..."]]]

  @classmethod
  def in_turn(
    cls,
    num_subjects: int,
    num_ways: int,
    arrays: Callable[
      [Int[np.ndarray, " n"], Int[np.ndarray, " n"]], dict[str, Shaped[np.ndarray, "n ..."]]
    ],
  ) -> "Tries":
    """Every subject in the first way, then in the next: `arrays` of subjects and their ways."""
    return cls(
      np.tile(np.arange(num_subjects), num_ways),
      lambda places: arrays(places % num_subjects, places // num_subjects),
    )


@dataclasses.dataclass(frozen=True)
class Found:
  """The best picture of each of N subjects over its tries.

  Attributes:
    level, margin: of it; see `search.State`.
    image: it; without pixels (S = 0) where it was not to be returned.
    by: the try that found it; -1: the subject had none.
  """

  level: Int[np.ndarray, " N"]
  margin: Float32[np.ndarray, " N"]
  image: Float32[np.ndarray, "N S S 3"]
  by: Int[np.ndarray, " N"]

  @property
  def moved(self) -> Bool[np.ndarray, " N"]:
    """Where the attack succeeded, if not fully."""
    return self.level >= search.MOVED

  @property
  def kept(self) -> Bool[np.ndarray, " N"]:
    """Where it fully succeeded: see `search.Seen`."""
    return self.level == search.KEPT


def _begin(method: Method, numbers: Numbers, batch: dict) -> State:
  """New states in `fresh` rows, the old ones elsewhere; closed rows have nothing to do."""
  new: Any = begin_batch(method, numbers, batch)
  if "state" in batch:
    new = jax.tree.map(lambda a, b: of_rows(batch["fresh"], a, b), new, batch["state"])
  return dataclasses.replace(new, most=jnp.where(batch["open"], new.most, 0))


class _Slots:
  """The rows of the devices' batch, and the try that each of them holds; -1: none."""

  def __init__(self, attack: Attack, network: Network, numbers: Numbers, rows: int):
    looks = parallel.loop_slices(_LOOKS)[0]
    self.shared = parallel.replicate(Shared(network, dataclasses.replace(numbers, num_steps=looks)))
    self.numbers = numbers
    self.begin = parallel.per_example(_begin, attack.method)
    self.go_on = parallel.per_example(go_on_batch, attack.objective, attack.method.run)
    self.held, self.arrays = np.full(rows, -1), {}
    self.state: Any = None

  @property
  def free(self) -> Int[np.ndarray, " n"]:
    return np.flatnonzero(self.held < 0)

  def hold(self, chosen: Int[np.ndarray, " n"], arrays: dict[str, np.ndarray]) -> None:
    """Gives free slots to tries, and places the batch anew, also where some were only freed."""
    rows, fresh = len(self.held), np.zeros(len(self.held), bool)
    slots = self.free[: len(chosen)]
    self.held[slots], fresh[slots] = chosen, True
    for name, values in arrays.items():
      empty = np.zeros((rows, *values.shape[1:]), values.dtype)
      self.arrays.setdefault(name, empty)[slots] = values
    told = {**self.arrays, "fresh": fresh, "open": self.held >= 0}
    self.batch = parallel.place(told, rows)
    before = {} if self.state is None else {"state": self.state}
    self.state = self.begin(self.numbers, {**self.batch, **before})

  def step(self) -> Int[np.ndarray, " n"]:
    """Some looks; returns the slots that are done."""
    self.state = self.go_on(self.shared, {**self.batch, "state": self.state})
    return np.flatnonzero(parallel.unshard(self.state.done) & (self.held >= 0))

  def best(
    self, images: bool
  ) -> tuple[Int[np.ndarray, " R"], Float32[np.ndarray, " R"], Float32[np.ndarray, "R h w 3"]]:
    """Level, margin and image, perhaps without its pixels, of every slot."""
    level, margin = parallel.unshard((self.state.level, self.state.margin))
    none = np.zeros((len(level), 0, 0, 3), np.float32)
    return level, margin, parallel.unshard(self.state.best) if images else none


class _Board:
  """What was found of each subject so far, and which tries are left."""

  def __init__(self, tries: Tries, num_subjects: int):
    self.subject, self.waiting = tries.subject, collections.deque(range(len(tries.subject)))
    self.left = np.bincount(tries.subject, minlength=num_subjects)
    self.level = np.full(num_subjects, search.UNSEEN)
    self.margin = np.full(num_subjects, -np.inf, np.float32)
    self.by, self.image = np.full(num_subjects, -1), np.zeros((num_subjects, 0, 0, 3), np.float32)

  @property
  def num_closed(self) -> int:
    """Subjects that nothing more is tried on."""
    return int(((self.level == search.KEPT) | (self.left == 0)).sum())

  def over(self, held: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Of the tries that are held (-1: none), those whose subject has succeeded by another."""
    over, some = np.zeros(len(held), bool), held >= 0
    over[some] = self.level[self.subject[held[some]]] == search.KEPT
    return over

  def next(self, most: int) -> Int[np.ndarray, " n"]:
    """Up to so many tries that are to begin now."""
    chosen: list[int] = []
    while self.waiting and len(chosen) < most:
      one = self.waiting.popleft()
      if self.level[self.subject[one]] < search.KEPT:
        chosen.append(one)
      else:
        self.left[self.subject[one]] -= 1
    return np.array(chosen, int)

  def note(
    self,
    ended: Int[np.ndarray, " n"],
    level: Int[np.ndarray, " n"],
    margin: Float32[np.ndarray, " n"],
    image: Float32[np.ndarray, "n S S 3"],
  ) -> None:
    """The best pictures of tries that have ended."""
    if not self.image.size:
      self.image = np.zeros((len(self.left), *image.shape[1:]), np.float32)
    for i, one in enumerate(ended):
      subject = self.subject[one]
      self.left[subject] -= 1
      if (level[i], margin[i]) > (self.level[subject], self.margin[subject]):
        self.level[subject], self.margin[subject] = level[i], margin[i]
        self.by[subject], self.image[subject] = one, image[i]


def drive_rows(
  attack: Attack,
  network: Network,
  tries: Tries,
  numbers: Numbers,
  *,
  num_subjects: int,
  rows: int,
  title: str | None,
  images: bool = True,
) -> Found:
  """Tries all that is to be tried, until each subject has fully succeeded or has no try left.

  Args:
    attack: its method is a `search.method`; its objective gives a `search.Seen`.
    numbers: of each try; `num_steps` are its steps in all.
    rows: at once: a multiple of the devices.
    title: of the progress bar over the subjects; None: none is shown.
    images: return the pictures that are found, which fill the memory of the host.
  """
  slots, board = _Slots(attack, network, numbers, rows), _Board(tries, num_subjects)
  with tqdm(
    total=num_subjects, desc=title, unit="image", dynamic_ncols=True, disable=title is None
  ) as bar:
    while True:
      over = board.over(slots.held)
      board.left -= np.bincount(tries.subject[slots.held[over]], minlength=num_subjects)
      slots.held[over] = -1
      chosen = board.next(len(slots.free))
      if chosen.size or over.any():
        slots.hold(chosen, tries.arrays(chosen) if chosen.size else {})
      if (slots.held < 0).all():
        break
      if (done := slots.step()).size:
        board.note(slots.held[done], *(values[done] for values in slots.best(images)))
        slots.held[done] = -1
      bar.update(board.num_closed - bar.n)
  return Found(board.level, board.margin, board.image, board.by)
