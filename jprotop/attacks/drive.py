"""How every attack is run over batches: begin, go on in slices of the loop, look."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import flax.struct
import jax
from jaxtyping import Array, Float

from jprotop import parallel
from jprotop.attacks.budget import Numbers
from jprotop.attacks.pgd import Method, Room, State, everywhere
from jprotop.prototypes.see import Network


@dataclasses.dataclass(frozen=True)
class Attack:
  """What is raised, and how. Of functions of a module, so that a second one compiles nothing.

  Attributes:
    objective: (network, images, batch, numbers) to what the method raises, [B]; None: a method
      without steps raises nothing.
  """

  objective: Callable[[Network, Float[Array, "B S S 3"], dict, Numbers], Any] | None
  method: Method


@flax.struct.dataclass
class Shared:
  """What the steps need for all images."""

  network: Network
  numbers: Numbers


def room_of(batch: dict) -> Room:
  """Where noise may be: on the batch's `pixels`, or everywhere."""
  image, pixels = batch["image"], batch.get("pixels")
  return everywhere(image) if pixels is None else Room(image, pixels)


def begin_batch(method: Method, numbers: Numbers, batch: dict) -> State:
  """Where a method begins with the images of a batch."""
  return method.init(room_of(batch), numbers, jax.random.wrap_key_data(batch["key"]))


def go_on_batch(objective: Callable, run: Callable, shared: Shared, batch: dict) -> State:
  """Some steps further; numbers and rules are traced: one compilation."""
  network, numbers = shared.network, shared.numbers

  def of_images(x):
    return objective(network, x, batch, numbers)

  return run(batch["state"], of_images, room_of(batch), numbers)


def _slices(attack: Attack, numbers: Numbers) -> list[tuple[Callable, Numbers]]:
  """The programs that go on, one after another, each with the steps that it takes."""
  if attack.objective is None or attack.method.run is None:
    return []
  go_on = parallel.per_example(go_on_batch, attack.objective, attack.method.run)
  counts = parallel.loop_slices(int(numbers.num_steps))
  return [(go_on, dataclasses.replace(numbers, num_steps=count)) for count in counts]


def drive(
  attack: Attack,
  network: Network,
  batches: Iterable,
  numbers: Numbers,
  look: Callable[[Network, Float[Array, "devices share S S 3"], dict], Any],
  *,
  rows: int,
  total: int,
  title: str | None,
) -> Any:
  """What is found in attacked images, a tree of host arrays [N, ...].

  Args:
    batches: of images, raw random keys, and what the objective reads; perhaps the `pixels` that may
      change, boolean [n, S, S].
    look: (network, attacked images, batch) to what is found, on the devices.
    rows: of every batch, to which it is padded: a multiple of the devices.
    total, title: of the progress bar.
  """
  begin = parallel.per_example(begin_batch, attack.method)
  slices = _slices(attack, numbers)

  def attacked(network: Network, batch: dict) -> Any:
    state = begin(numbers, batch)
    for go_on, some_steps in slices:
      state = go_on(Shared(network, some_steps), {**batch, "state": state})
    return look(network, state.found, batch)

  return parallel.gather_examples(attacked, network, batches, rows, total=total, title=title)
