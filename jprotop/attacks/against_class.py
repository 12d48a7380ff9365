"""The strongest attacks on the classification: Auto-PGD with two losses, then Square Attack.

Croce and Hein (ICML 2020) call this ensemble AutoAttack, where it has 100 steps, 9 targets and 5000
queries, and one attack more (FAB). An image counts as right under attack only if each of them left
it so.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jprotop import parallel
from jprotop.attacks import apgd, square
from jprotop.attacks.budget import Budget, Numbers
from jprotop.attacks.drive import Attack
from jprotop.attacks.refill import rows_that_reach
from jprotop.data.dataset import Split
from jprotop.prototypes import losses
from jprotop.prototypes.see import Network

# In the batch, in place of a target: the attack is on the cross entropy.
NO_TARGET = -1
ATTACKS = ("apgd_ce", "apgd_targeted", "square")
_TINY = 1e-12


def targeted_dlr(
  logits: Float[Array, "B C"], label: Int[Array, " B"], target: Int[Array, " B"]
) -> Float[Array, " B"]:
  """The difference of logits ratio with a target t (Croce and Hein 2020, Eq. 7), to be raised.

  -(z_y - z_t) / (z_1 - (z_3 + z_4) / 2), where z_1, z_2, ... are the logits from the highest down:
  it does not depend on the logits' scale, so that its gradient does not vanish where a network is
  very sure. With fewer than four classes there is no such ratio; then it is z_t - z_y alone.
  """

  def of(index):
    return jnp.take_along_axis(logits, index[:, None], axis=1)[:, 0]

  difference = of(target) - of(label)
  if logits.shape[1] < 4:
    return difference
  ordered = jnp.sort(logits, axis=1)[:, ::-1]
  return difference / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + _TINY)


def margin(logits: Float[Array, "B C"], label: Int[Array, " B"]) -> Float[Array, " B"]:
  """The highest other logit minus that of the label, which Square Attack raises."""
  own = jnp.arange(logits.shape[1])[None, :] == label[:, None]
  other = jnp.where(own, -jnp.inf, logits).max(axis=1)
  return other - jnp.take_along_axis(logits, label[:, None], axis=1)[:, 0]


def by_gradient(
  network: Network, images: Float[Array, "B S S 3"], batch: dict, numbers: Numbers
) -> tuple[Float[Array, " B"], Bool[Array, " B"]]:
  """What Auto-PGD raises, and whether an image is misled: the cross entropy, or, in rows with a
  target, the targeted DLR."""
  logits, label, target = network(images).logits, batch["label"], batch["target"]
  towards = targeted_dlr(logits, label, jnp.maximum(target, 0))
  values = jnp.where(target == NO_TARGET, losses.cross_entropy(logits, label), towards)
  return values, logits.argmax(axis=1) != label


def by_margin(
  network: Network, images: Float[Array, "B S S 3"], batch: dict, numbers: Numbers
) -> tuple[Float[Array, " B"], Bool[Array, " B"]]:
  """What Square Attack raises, and whether an image is misled."""
  logits = network(images).logits
  return margin(logits, batch["label"]), logits.argmax(axis=1) != batch["label"]


def likely_targets(
  logits: Float[np.ndarray, "N C"], label: Int[np.ndarray, " N"], count: int
) -> Int[np.ndarray, "N T"]:
  """The most likely other classes of each image, the most likely first; T <= count."""
  others = np.where(np.arange(logits.shape[1]) == label[:, None], -np.inf, logits)
  count = min(count, logits.shape[1] - 1)
  return np.argsort(-others, axis=1, kind="stable")[:, :count]


@dataclasses.dataclass(frozen=True)
class Effort:
  """How hard the attacks try.

  Attributes:
    eps: radius of the l-infinity ball, in units of [0, 1].
    num_steps: of Auto-PGD, for each loss and target.
    restarts: random starts with the cross entropy.
    targets: most likely other classes that are tried in turn.
    queries: of Square Attack.
  """

  eps: float
  num_steps: int = 100
  restarts: int = 1
  targets: int = 9
  queries: int = 5000

  def budget(self, num_steps: int) -> Budget:
    """Of one of its attacks."""
    return Budget(eps=self.eps, num_steps=num_steps)


def misled(
  network: Network,
  split: Split,
  indices: Int[np.ndarray, " N"],
  logits: Float[np.ndarray, "N C"],
  effort: Effort,
  *,
  seed: int,
  batch_size: int,
) -> dict[str, Bool[np.ndarray, " N"]]:
  """Which images of a split each of `ATTACKS` misled, of those that the ones before had left.

  Args:
    indices: which images, all of them classified correctly; logits: of these as they are.
    seed: of random starts and squares.
    batch_size: rows at once.
  """
  label, slots = split.label[indices], parallel.round_up(max(1, min(batch_size, len(indices))))
  found = {name: np.zeros(len(indices), bool) for name in ATTACKS}
  for stage, (name, attack, numbers, tries) in enumerate(_stages(split, label, logits, effort)):
    left = np.flatnonzero(~np.any([*found.values()], axis=0))
    if not left.size:
      break
    # The first try on each image, then the second on each that is left, and so on.
    image, target = np.tile(left, tries.shape[1]), tries[left].T.ravel()
    number = np.repeat(np.arange(tries.shape[1]), len(left)) * len(ATTACKS) + stage

    def rows_of(rows, image=image, target=target, number=number):
      index = indices[image[rows]]
      return {
        "image": split.pixels[index],
        "label": label[image[rows]].astype(np.int32),
        "target": target[rows].astype(np.int32),
        # Other noise for each try; no split has 2**20 images.
        "key": parallel.key_array(seed, number[rows] * 2**20 + index),
      }

    reached = rows_that_reach(attack, network, rows_of, image, numbers, slots=slots, title=name)
    found[name][image[reached]] = True
  return found


def _stages(
  split: Split, label: Int[np.ndarray, " N"], logits: Float[np.ndarray, "N C"], effort: Effort
) -> list[tuple[str, Attack, Numbers, Int[np.ndarray, "N tries"]]]:
  """The attacks in turn, with their numbers and the target of each try."""
  gradient = Attack(by_gradient, apgd.METHOD), apgd.numbers_of(effort.budget(effort.num_steps))
  queries = square.numbers_of(effort.budget(effort.queries), split.image_size)
  none = np.full((len(label), 1), NO_TARGET)
  return [
    ("apgd_ce", *gradient, np.repeat(none, effort.restarts, axis=1)),
    ("apgd_targeted", *gradient, likely_targets(logits, label, effort.targets)),
    ("square", Attack(by_margin, square.METHOD), queries, none),
  ]
