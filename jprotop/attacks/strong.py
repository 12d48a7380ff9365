"""The strongest attack on where a prototype is found: the worst case over restarts and objectives.

Each aim, an image with a prototype of it and the cells S and S_noisy, is tried from several random
starts by APGD, with Eq. (2) and with the margin, until the prototype is found in S_noisy and the
predicted class is as it was. A picture with another class counts as moved, and the search goes on.
"""

import dataclasses
import time
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jprotop import parallel
from jprotop.attacks.aims import MASKS, Aims
from jprotop.attacks.apgd import APGD
from jprotop.attacks.budget import Numbers
from jprotop.attacks.drive import Attack
from jprotop.attacks.noise import NOISE
from jprotop.attacks.objectives import Cells, margin, move
from jprotop.attacks.pgd import Method
from jprotop.attacks.search import Seen
from jprotop.attacks.search_rows import Found, Tries, drive_rows
from jprotop.attacks.square import SQUARE
from jprotop.prototypes.see import Network


@dataclasses.dataclass(frozen=True)
class Strength:
  """How much is tried.

  Attributes:
    restarts: random starts of each objective.
    num_steps: of each start.
    masks: of MASKS.
  """

  restarts: int
  num_steps: int
  masks: tuple[str, ...]

  @property
  def looks(self) -> int:
    """Pictures that are looked at of one aim with one mask, unless it succeeds before."""
    return 2 * self.restarts * (self.num_steps + 1)


STRENGTHS = {
  "strong-small": Strength(restarts=2, num_steps=50, masks=MASKS[:1]),
  "strong": Strength(restarts=5, num_steps=100, masks=MASKS),
}


def look_at(
  network: Network, images: Float[Array, "B S S 3"], batch: Mapping[str, Array], numbers: Numbers
) -> Seen:
  """What is raised, in rows `by_margin` the margin and in the others Eq. (2); and the success test.

  A success is strict: higher somewhere in S_noisy than anywhere else.
  """
  out = network(images)
  own = batch["prototypes"][:, None, None, :]
  maps = jnp.take_along_axis(out.similarity_map, own, axis=-1)[..., 0]
  cells = Cells(batch["source"], batch["target"])
  beyond = margin(maps, cells, numbers)
  value = jnp.where(batch["by_margin"], beyond, move(maps, cells, numbers))
  return Seen(value, beyond, out.logits.argmax(axis=-1) == batch["prediction"])


def tries_of(aims: Aims, mask: str, restarts: int, *, seed: int, by_margin: bool = False) -> Tries:
  """Every aim by both objectives, then from the next start; in order of starts.

  Args:
    by_margin: with the margin alone.
  """
  pixels, by = aims.pixels(mask), np.array([True] if by_margin else [False, True])

  def arrays(one: Int[np.ndarray, " n"], way: Int[np.ndarray, " n"]) -> dict[str, np.ndarray]:
    return {
      "image": aims.image[one],
      "pixels": pixels[one],
      "prototypes": aims.prototype[one, None].astype(np.int32),
      "prediction": aims.prediction[one].astype(np.int32),
      "source": aims.source[one],
      "target": aims.target[one],
      "by_margin": by[way % len(by)],
      "key": parallel.key_array(seed, aims.index[one], way),
    }

  return Tries.in_turn(len(aims), restarts * len(by), arrays)


@dataclasses.dataclass(frozen=True)
class Setting:
  """What all attacks of one measurement have in common.

  Attributes:
    network: with the files that images pass, if any.
    eps: radius of the l-infinity ball, in units of [0, 1].
    seed: of starts, squares and noise.
    batch_size: tries at once.
  """

  network: Network
  eps: float
  seed: int
  batch_size: int

  def search(
    self, method: Method, aims: Aims, tries: Tries, num_steps: int, title: str | None
  ) -> Found:
    """What a search finds of all aims."""
    return drive_rows(
      Attack(look_at, method),
      self.network,
      tries,
      Numbers(eps=self.eps, step_size=0.0, num_steps=num_steps),  # Searches choose their steps.
      num_subjects=len(aims),
      rows=parallel.round_up(self.batch_size),
      title=title,
    )


def worst_case(
  setting: Setting, aims: Aims, strength: Strength, mask: str, title: str | None = "APGD"
) -> Found:
  """The best of all starts and both objectives, of each aim."""
  tries = tries_of(aims, mask, strength.restarts, seed=setting.seed)
  return setting.search(APGD, aims, tries, strength.num_steps, title)


def square(
  setting: Setting, aims: Aims, queries: int, mask: str, title: str | None = "Square attack"
) -> Found:
  """What Square attack, which needs no gradients, finds with so many looks."""
  tries = tries_of(aims, mask, 1, seed=setting.seed, by_margin=True)
  return setting.search(SQUARE, aims, tries, queries, title)


def noise(
  setting: Setting, aims: Aims, looks: int, mask: str, title: str | None = "random noise"
) -> Found:
  """The control: the best of so many pictures with random signs of size eps."""
  tries = tries_of(aims, mask, 1, seed=setting.seed, by_margin=True)
  return setting.search(NOISE, aims, tries, looks, title)


def seconds_a_look(setting: Setting, aims: Aims) -> float:
  """How long APGD takes for a look at one picture, where all tries at once are open.

  It compiles what the attack needs, and is over in some seconds.
  """
  some = aims.of(np.arange(min(len(aims), parallel.round_up(setting.batch_size))))
  some = dataclasses.replace(some, prediction=np.full(len(some), -1))  # None succeeds fully.
  tries = tries_of(some, MASKS[0], 1, seed=setting.seed)
  taken = []
  for _ in range(2):  # The first compiles.
    start = time.monotonic()
    setting.search(APGD, some, tries, 7, None)
    taken.append(time.monotonic() - start)
  return taken[1] / (len(tries.subject) * 8)
