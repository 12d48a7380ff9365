"""The attack behind the success rate (App. F.1): an image's top prototypes, one after another.

An image's most activated prototypes are attacked in turn, each from the clean image, until one is
found more strongly outside the place S where it was than inside, and the predicted class is kept.
So there are two outcomes of one attack: the first success whatever the class, which is App. F.1's,
and the first with the class kept. Protocol `paper`: S is where the
prototype is found on the clean image, and S_noisy is its exact complement. `attack_cases.Rules`
says where the reference code does otherwise.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from jprotop import parallel, regions, statistics
from jprotop.attacks import cases as attack_cases
from jprotop.attacks.budget import Budget
from jprotop.attacks.cases import Drawn, Rules
from jprotop.attacks.objectives import Objective
from jprotop.attacks.perturb import AttackBatch, Views, perturb, random_signs, see_own
from jprotop.data import own_images
from jprotop.errors import InputError
from jprotop.prototypes import selectors
from jprotop.prototypes.see import Network, see


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subjects:
  """Images and their K most activated prototypes.

  Attributes:
    images: N of them.
    index: places in the split; they name the noise, which so depends on nothing else.
    prediction: the class that the network sees in the clean image.
    prototypes: the most activated first.
    maps: their similarity maps on the clean image.
  """

  images: own_images.Images
  index: Int[np.ndarray, " N"]
  prediction: Int[np.ndarray, " N"]
  prototypes: Int[np.ndarray, "N K"]
  maps: Float[np.ndarray, "N K h w"]


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What came of the attacks on N images, by one rule of what a success is.

  Attributes:
    attackable_within: column k - 1 says whether an image could be attacked had it but its first k
      prototypes: one of them was attacked, and it was not dropped at any of them.
    num_tried: prototypes that were attacked, up to the success.
    rank: the place among its prototypes of the one that succeeded, from 0; -1: none.
    map: that prototype's map on the attacked image; 0 where none succeeded.
    prediction: the class seen in that image; -1 where none succeeded.
    margin: by how much its map is higher outside the S of the success test than inside; 0 where
      none succeeded.
  """

  attackable_within: Bool[np.ndarray, "N K"]
  num_tried: Int[np.ndarray, " N"]
  rank: Int[np.ndarray, " N"]
  map: Float[np.ndarray, "N h w"]
  prediction: Int[np.ndarray, " N"]
  margin: Float[np.ndarray, " N"]

  @property
  def attackable(self) -> Bool[np.ndarray, " N"]:
    """With all K prototypes; the other images count in no number about all K."""
    return self.attackable_within[:, -1]


class Outcomes(NamedTuple):
  """Two outcomes of one attack: the prototype moved (App. F.1), and the class was kept, too."""

  moved: Outcome
  kept: Outcome


Cells = Bool[np.ndarray, "n h w"]
# (rows of Subjects, rank, S, S_noisy) to what the network sees in the attacked images.
Round = Callable[[Int[np.ndarray, " n"], int, Cells, Cells], Views]
# (images, prototype) to that prototype's map on each.
Find = Callable[[Float32[np.ndarray, "n S S 3"], Int[np.ndarray, " n"]], Float[np.ndarray, "n h w"]]


def choose_subjects(network: Network, drawn: Drawn, *, top_k: int, batch_size: int) -> Subjects:
  """Images that were drawn, and their most activated prototypes of all classes.

  Raises:
    InputError: there are fewer than top_k prototypes.
  """
  check_top_k(top_k, len(network.model.prototype_class))
  prototypes = statistics.top_columns(drawn.activations, top_k)
  # A second look: only their scores were kept of all the images that they were drawn from.
  seen = see(
    network,
    drawn.images.image,
    selectors.own_maps,
    batch_size=min(batch_size, len(drawn.images)),
    each={"prototypes": prototypes},
  )
  return Subjects(
    images=drawn.images,
    index=drawn.index,
    prediction=drawn.logits.argmax(axis=1),
    prototypes=prototypes,
    maps=seen["similarity_maps"],
  )


def check_top_k(top_k: int, num_prototypes: int) -> None:
  """Raises InputError unless there are so many prototypes."""
  if not 1 <= top_k <= num_prototypes:
    raise InputError(
      f"top_k={top_k} must lie between 1 and {num_prototypes}, the number of prototypes that this "
      "network has; the paper takes 5"
    )


class _Goal:
  """How far each of N images has come towards one kind of success."""

  def __init__(self, subjects: Subjects):
    count, top_k = subjects.prototypes.shape
    self.num_tried, self.rank = np.zeros(count, int), np.full(count, -1)
    self.dropped_at = np.full(count, top_k)  # A round; top_k: in none.
    self.map, self.margin = np.zeros_like(subjects.maps[:, 0]), np.zeros(count)
    self.prediction = np.full(count, -1)

  def drop(self, rows: Int[np.ndarray, " n"], rank: int) -> None:
    self.dropped_at[rows[self.rank[rows] < 0]] = rank

  def note(
    self,
    rows: Int[np.ndarray, " n"],
    rank: int,
    reached: Bool[np.ndarray, " n"],
    margin: Float[np.ndarray, " n"],
    views: Views,
  ) -> None:
    """What was seen of `rows` after a round; those that succeeded before keep what they have."""
    waiting = self.rank[rows] < 0
    self.num_tried[rows[waiting]] += 1
    now = waiting & reached
    done = rows[now]
    self.rank[done], self.margin[done] = rank, margin[now]
    self.map[done] = views.similarity_map[now]
    self.prediction[done] = views.logits[now].argmax(axis=1)

  def outcome(self, first_tried: Int[np.ndarray, " N"], top_k: int) -> Outcome:
    rounds = np.arange(top_k)
    attackable = (first_tried[:, None] <= rounds) & (self.dropped_at[:, None] > rounds)
    return Outcome(attackable, self.num_tried, self.rank, self.map, self.prediction, self.margin)


class _Tally:
  """How far each of N images has come; `note` fills it in, round by round."""

  def __init__(self, subjects: Subjects):
    count, self.top_k = subjects.prototypes.shape
    self.subjects, self.waiting = subjects, np.ones(count, bool)
    self.latest = subjects.images.image.copy()  # as each was attacked last
    self.first_tried = np.full(count, self.top_k)  # A round; top_k: none.
    self.moved, self.kept = _Goal(subjects), _Goal(subjects)

  def drop(self, rows: Int[np.ndarray, " n"], rank: int) -> None:
    self.waiting[rows] = False
    for goal in (self.moved, self.kept):
      goal.drop(rows, rank)

  def note(self, rows: Int[np.ndarray, " n"], rank: int, tested: Cells, views: Views) -> None:
    """What was seen of `rows` after the attack of a round; `tested` is S of its success test."""
    self.first_tried[rows] = np.minimum(self.first_tried[rows], rank)
    self.latest[rows] = views.image
    outside, inside = (
      regions.max_over_cells(views.similarity_map, cells) for cells in (~tested, tested)
    )
    moved = outside > inside
    kept = moved & (views.logits.argmax(axis=1) == self.subjects.prediction[rows])
    for goal, reached in ((self.moved, moved), (self.kept, kept)):
      goal.note(rows, rank, reached, outside - inside, views)
    self.waiting[rows[kept]] = False

  def outcomes(self) -> Outcomes:
    moved, kept = (goal.outcome(self.first_tried, self.top_k) for goal in (self.moved, self.kept))
    return Outcomes(moved, kept)


def attack_in_turn(subjects: Subjects, rules: Rules, attack: Round, find_map: Find) -> Outcomes:
  """Attacks every image's prototypes until one succeeds and the class that the network sees is
  kept: round r takes the r-th of each image.

  A success is strict: higher somewhere outside S than anywhere inside. An image leaves with its
  first success that keeps the class; what came after its first success does not change `moved`. A
  prototype whose S covers the grid cannot be attacked: the next one is tried, or,
  by `rules.drop_covered`, the image is dropped.
  """
  tally = _Tally(subjects)
  for rank in range(tally.top_k):
    rows = np.flatnonzero(tally.waiting)
    if not rows.size:
      break
    source = _sources(subjects.maps[rows, rank], subjects, rules)
    tested = source  # the S of the success test
    if rules.chained_source and rank:
      maps = find_map(tally.latest[rows], subjects.prototypes[rows, rank])
      tested = _sources(maps, subjects, rules)
    covered = tested.all(axis=(1, 2))
    if rules.drop_covered:
      tally.drop(rows[covered], rank)
    rows, source, tested = rows[~covered], source[~covered], tested[~covered]
    if not rows.size:
      continue
    target = ~tested
    if rules.rectangular_target:
      target = np.stack([regions.cells_bounding_box(cells) for cells in target])
    tally.note(rows, rank, tested, attack(rows, rank, source, target))
  return tally.outcomes()


def _sources(maps: Float[np.ndarray, "n h w"], subjects: Subjects, rules: Rules) -> Cells:
  """S of each map."""
  size = subjects.images.image.shape[1]
  return np.stack([attack_cases.source_cells(m, size, rules) for m in maps])


def batch_of(
  subjects: Subjects,
  rows: Int[np.ndarray, " n"],
  rank: int,
  source: Cells,
  target: Cells,
  *,
  seed: int,
) -> AttackBatch:
  """What is attacked in a round: the clean images of `rows`, and their prototypes of that rank."""
  size = subjects.images.image.shape[1]
  return AttackBatch(
    image=subjects.images.image[rows],
    pixels=regions.cells_to_pixels(target, size, size),
    prototype=subjects.prototypes[rows, rank],
    key=parallel.key_array(seed, subjects.index[rows], rank),  # whatever top_k is
    source=source,
    target=target,
  )


def attacker(
  network: Network,
  subjects: Subjects,
  budget: Budget,
  rules: Rules,
  *,
  objective: str | Objective | None,
  seed: int,
  batch_size: int,
  title: str,
) -> tuple[Round, Find]:
  """The functions that `attack_in_turn` needs, of a network.

  Args:
    objective: as in `perturb.perturb`; None: the control, `perturb.random_signs`.
    seed: of the noise.
    title: of the progress bars.
  """
  size, files = min(batch_size, len(subjects.images)), network.in_files(budget.survive_jpeg)

  def attack(rows, rank, source, target):
    batch = batch_of(subjects, rows, rank, source, target, seed=seed)
    name = f"{title}, prototype {rank + 1}"
    if objective is None:
      return random_signs(network, batch, budget, batch_size=size, title=name)
    return perturb(
      network, batch, budget, objective=objective, rules=rules, batch_size=size, title=name
    )

  def find_map(images, prototype):
    return see_own(files, images, prototype, batch_size=size).similarity_map

  return attack, find_map
