"""The strongest attacks on the classification: Auto-PGD with two losses, then Square Attack.

Croce and Hein (ICML 2020) call this ensemble AutoAttack, where it has 100 steps, 9 targets and 5000
queries, and one attack more (FAB). An image counts as right under attack only if each of them left
it so.
"""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jprotop import parallel
from jprotop.attacks.apgd import APGD
from jprotop.attacks.budget import Budget, Numbers
from jprotop.attacks.drive import Attack
from jprotop.attacks.pgd import Method
from jprotop.attacks.search import Seen
from jprotop.attacks.search_rows import Tries, drive_rows
from jprotop.attacks.square import SQUARE
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


def look_at(
  network: Network, images: Float[Array, "B S S 3"], batch: Mapping[str, Array], numbers: Numbers
) -> Seen:
  """What is raised, the cross entropy or, in rows with a target, the targeted DLR; and the margin.

  Of equal logits the first is predicted, here as in every accuracy.
  """
  logits, label, target = network(images).logits, batch["label"], batch["target"]
  towards = targeted_dlr(logits, label, jnp.maximum(target, 0))
  value = jnp.where(target == NO_TARGET, losses.cross_entropy(logits, label), towards)
  misled, beyond = logits.argmax(axis=1) != label, margin(logits, label)
  beyond = jnp.where(misled, jnp.maximum(beyond, _TINY), beyond)
  return Seen(value, beyond, jnp.ones_like(misled))


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
  label, hits = split.label[indices], {name: np.zeros(len(indices), bool) for name in ATTACKS}
  for stage, (name, method, num_steps, targets) in enumerate(_stages(label, logits, effort)):
    left = np.flatnonzero(~np.any([*hits.values()], axis=0))
    if not left.size:
      break
    found = drive_rows(
      Attack(look_at, method),
      network,
      _tries(split, indices[left], targets[left], stage, seed=seed),
      Budget(eps=effort.eps, num_steps=num_steps).numbers(),
      num_subjects=len(left),
      rows=parallel.round_up(max(1, min(batch_size, len(left)))),
      title=name,
      images=False,
    )
    hits[name][left[found.kept]] = True
  return hits


def _stages(
  label: Int[np.ndarray, " N"], logits: Float[np.ndarray, "N C"], effort: Effort
) -> list[tuple[str, Method, int, Int[np.ndarray, "N tries"]]]:
  """`ATTACKS` in turn: the method, its steps, and the targets of each image's tries."""
  none = np.full((len(label), 1), NO_TARGET)
  targets = likely_targets(logits, label, effort.targets)
  return [
    (ATTACKS[0], APGD, effort.num_steps, np.repeat(none, effort.restarts, axis=1)),
    (ATTACKS[1], APGD, effort.num_steps, targets),
    (ATTACKS[2], SQUARE, effort.queries, none),
  ]


def _tries(
  split: Split,
  indices: Int[np.ndarray, " N"],
  targets: Int[np.ndarray, "N tries"],
  stage: int,
  *,
  seed: int,
) -> Tries:
  """The first try on each image, then the second, and so on."""

  def arrays(one: Int[np.ndarray, " n"], way: Int[np.ndarray, " n"]) -> dict[str, np.ndarray]:
    return {
      "image": split.pixels[indices[one]],
      "label": split.label[indices[one]].astype(np.int32),
      "target": targets[one, way].astype(np.int32),
      "key": parallel.key_array(seed, indices[one], way * len(ATTACKS) + stage),
    }

  num_images, num_tries = targets.shape
  return Tries.in_turn(num_images, num_tries, arrays)
