"""The attacks that the strongest one consists of, and those that it is compared with."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Int

from jprotop import parallel, regions
from jprotop.attacks import aims as aims_of
from jprotop.attacks import strong
from jprotop.attacks.aims import MASKS, Aims
from jprotop.attacks.budget import Budget
from jprotop.attacks.in_turn import Subjects
from jprotop.attacks.perturb import AttackBatch, perturb
from jprotop.attacks.strong import Setting, Strength
from jprotop.attacks.strong_cases import Reached, by_mask
from jprotop.experiments.strong_attack_numbers import InRanks, OnMask


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is tried.

  Attributes:
    name: of the strength, in strong.STRENGTHS.
    levels: the eps of the curve, the last one the budget's.
    queries: of Square attack; 0: there is none.
    targets: of aims.TARGETS.
    top_k: prototypes of each image, off S.
    budget: of the paper's attack; its eps is that of all.
  """

  name: str
  levels: tuple[float, ...]
  queries: int
  targets: tuple[str, ...]
  top_k: int
  budget: Budget

  @property
  def strength(self) -> Strength:
    return strong.STRENGTHS[self.name]

  def most_looks(self, num_images: int) -> tuple[int, int]:
    """Looks with and without gradients, where no image is moved by anything."""
    masks = len(self.strength.masks)
    small = len(self.levels) + self.top_k - 1
    rows = small + (min(masks, 2) - 1) + masks * len(self.targets)
    control = self.top_k + (min(masks, 2) - 1) + masks * len(self.targets)
    with_gradients = rows * self.strength.looks + control * self.budget.num_steps
    return num_images * with_gradients, num_images * (control * self.strength.looks + self.queries)


def papers(setting: Setting, aims: Aims, budget: Budget, mask: str, rank: int = 0) -> Reached:
  """What the paper's attack reaches: the last iterate of PGD on Eq. (2), from one start.

  Args:
    rank: of the prototypes; the noise is that of the success rate.
  """
  if not len(aims):
    return Reached.nothing(0)
  batch = AttackBatch(
    image=aims.image,
    pixels=aims.pixels(mask),
    prototype=aims.prototype,
    key=parallel.key_array(setting.seed, aims.index, rank),
    source=aims.source,
    target=aims.target,
  )
  views = perturb(
    setting.network, batch, budget, batch_size=setting.batch_size, title=f"paper's, {mask}"
  )
  inside, outside = (
    regions.max_over_cells(views.similarity_map, cells) for cells in (aims.target, ~aims.target)
  )
  moved = inside > outside
  return Reached(moved, moved & (views.logits.argmax(axis=1) == aims.prediction))


def controls(setting: Setting, aims: Aims, strength: Strength, mask: str) -> Reached:
  """What random noise reaches with as many looks as the strong attack may take."""
  found = strong.noise(setting, aims, strength.looks, mask)
  return Reached(found.moved, found.kept)


# (rank, aims) to what is reached.
Attack = Callable[[int, Aims], Reached]


def in_ranks(subjects: Subjects, attack: Attack) -> InRanks:
  """Attacks the prototypes of each image off S in turn, until one moves with the class kept."""
  count, top_k = subjects.prototypes.shape
  moved_at, kept_at, attackable_at = (np.full(count, top_k) for _ in range(3))
  for rank in range(top_k):
    rows, aims = aims_of.off_source(subjects, rank)
    attackable_at[rows] = np.minimum(attackable_at[rows], rank)
    open_ = kept_at[rows] == top_k
    if not open_.any():
      continue
    rows, reached = rows[open_], attack(rank, aims.of(open_))
    for at, what in ((moved_at, reached.moved), (kept_at, reached.kept)):
      at[rows[what]] = np.minimum(at[rows[what]], rank)
  return InRanks(moved_at, kept_at, attackable_at, top_k)


def on_masks(
  setting: Setting,
  target: str,
  aimed: tuple[Int[np.ndarray, " n"], Aims],
  plan: Plan,
  known: Mapping[str, Reached] | None = None,
) -> list[OnMask]:
  """All attacks on one target, for each mask of the strength.

  Args:
    aimed: places among the subjects, and their aims.
    known: what "strong", "paper" and "control" reach with the first mask, where it is known.
  """
  rows, aims = aimed
  if not rows.size:
    return []
  known = known or {}
  found = []
  for mask, reached in by_mask(setting, aims, plan.strength, known.get("strong")).items():
    first = mask == MASKS[0]
    paper = known["paper"] if first and known else papers(setting, aims, plan.budget, mask)
    control = known["control"] if first and known else controls(setting, aims, plan.strength, mask)
    found.append(OnMask(target, mask, rows, aims, reached, paper, control))
  return found
