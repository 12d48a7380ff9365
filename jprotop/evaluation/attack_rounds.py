"""The attack behind the success rate (App. F.1): an image's top prototypes, one after another.

An image's most activated prototypes are attacked in turn, each from the clean image, until one is
found more strongly outside the place S where it was than inside. Protocol `paper`: S is where the
prototype is found on the clean image, and S_noisy is its exact complement. `attack_cases.Rules`
says where the reference code does otherwise.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from jprotop import metrics, parallel, regions
from jprotop.data import own_images
from jprotop.data.dataset import Split
from jprotop.errors import InputError
from jprotop.evaluation import attack_cases
from jprotop.evaluation.attack import Budget, Order, Seen, find, perturb
from jprotop.evaluation.attack_cases import Rules
from jprotop.evaluation.head_on_stomach import highest
from jprotop.models.protopnet import ProtoPNet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subjects:
  """Images and their K most activated prototypes.

  Attributes:
    images: N of them.
    index: int [N], places in the split; they name the noise, which so depends on nothing else.
    prediction: int [N], the class that the network sees in the clean image.
    prototypes: int [N, K], the most activated first.
    maps: [N, K, h, w], their similarity maps on the clean image.
  """

  images: own_images.Images
  index: np.ndarray
  prediction: np.ndarray
  prototypes: np.ndarray
  maps: np.ndarray


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What came of the attacks on N images.

  Attributes:
    attackable_within: boolean [N, K]; column k - 1 says whether an image could be attacked had it
      but its first k prototypes: one of them was attacked, and it was not dropped at any of them.
    num_tried: int [N], prototypes that were attacked.
    rank: int [N], the place among its prototypes of the one that succeeded, from 0; -1: none.
    map: [N, h, w], that prototype's map on the attacked image; 0 where none succeeded.
    prediction: int [N], the class seen in that image; -1 where none succeeded.
  """

  attackable_within: np.ndarray
  num_tried: np.ndarray
  rank: np.ndarray
  map: np.ndarray
  prediction: np.ndarray

  @property
  def attackable(self) -> np.ndarray:
    """With all K prototypes, boolean [N]; the other images count in no number about all K."""
    return self.attackable_within[:, -1]


# (rows of Subjects, rank, S, S_noisy) to what the network sees in the attacked images.
Attack = Callable[[np.ndarray, int, np.ndarray, np.ndarray], Seen]
# (images [n, S, S, 3], prototype [n]) to that prototype's map on each, [n, h, w].
Find = Callable[[np.ndarray, np.ndarray], np.ndarray]


def choose_subjects(
  model: ProtoPNet,
  variables: dict,
  split: Split,
  indices: np.ndarray,
  scores: dict[str, np.ndarray],
  *,
  top_k: int,
  batch_size: int,
) -> Subjects:
  """The images of a split at `indices`, and their most activated prototypes of all classes.

  Args:
    scores: `attack.scores` of the split.

  Raises:
    InputError: there are fewer than top_k prototypes.
  """
  check_top_k(top_k, len(model.prototype_class))
  images = own_images.from_split(split, indices)
  prototypes = metrics.highest(scores["activations"][indices], top_k)
  batch_size = min(batch_size, len(images))
  seen = find(model, variables, images.image, prototypes, batch_size=batch_size)
  return Subjects(
    images=images,
    index=indices,
    prediction=scores["logits"][indices].argmax(axis=1),
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


def attack_in_turn(subjects: Subjects, rules: Rules, attack: Attack, find_map: Find) -> Outcome:
  """Attacks every image's prototypes until one succeeds: round r takes the r-th of each image.

  A success is strict: higher somewhere outside S than anywhere inside. An image leaves with its
  first success. A prototype whose S covers the grid cannot be attacked: the next one is tried, or,
  by `rules.drop_covered`, the image is dropped.
  """
  count, top_k = subjects.prototypes.shape
  waiting = np.ones(count, bool)
  first_tried, dropped_at = np.full(count, top_k), np.full(count, top_k)  # rounds; top_k: in none
  num_tried, rank_of = np.zeros(count, int), np.full(count, -1)
  prediction, map_of = np.full(count, -1), np.zeros_like(subjects.maps[:, 0])
  latest = subjects.images.image.copy()
  for rank in range(top_k):
    rows = np.flatnonzero(waiting)
    if not rows.size:
      break
    source = _sources(subjects.maps[rows, rank], subjects, rules)
    tested = source  # the S of the success test
    if rules.chained_source and rank:
      maps = find_map(latest[rows], subjects.prototypes[rows, rank])
      tested = _sources(maps, subjects, rules)
    covered = tested.all(axis=(1, 2))
    if rules.drop_covered:
      dropped_at[rows[covered]] = rank
      waiting[rows[covered]] = False
    rows, source, tested = rows[~covered], source[~covered], tested[~covered]
    if not rows.size:
      continue
    target = ~tested
    if rules.rectangular_target:
      target = np.stack([regions.cells_bounding_box(cells) for cells in target])
    seen = attack(rows, rank, source, target)
    num_tried[rows] += 1
    first_tried[rows] = np.minimum(first_tried[rows], rank)
    latest[rows] = seen.image
    moved = highest(seen.similarity_map, ~tested) > highest(seen.similarity_map, tested)
    done = rows[moved]
    waiting[done] = False
    rank_of[done] = rank
    map_of[done] = seen.similarity_map[moved]
    prediction[done] = seen.logits[moved].argmax(axis=1)
  rounds = np.arange(top_k)
  attackable = (first_tried[:, None] <= rounds) & (dropped_at[:, None] > rounds)
  return Outcome(attackable, num_tried, rank_of, map_of, prediction)


def _sources(maps: np.ndarray, subjects: Subjects, rules: Rules) -> np.ndarray:
  """S of each map [n, h, w], boolean [n, h, w]."""
  size = subjects.images.image.shape[1]
  return np.stack([attack_cases.source_cells(m, size, rules) for m in maps])


def attacker(
  model: ProtoPNet,
  variables: dict,
  subjects: Subjects,
  budget: Budget,
  rules: Rules,
  *,
  kind: str,
  seed: int,
  batch_size: int,
  title: str,
) -> tuple[Attack, Find]:
  """The functions that `attack_in_turn` needs, of a network.

  Args:
    kind: "move", or "random" for the control; see `attack.perturb`.
    seed: of the noise.
    title: of the progress bars.
  """
  size = subjects.images.image.shape[1]
  batch_size = min(batch_size, len(subjects.images))

  def attack(rows: np.ndarray, rank: int, source: np.ndarray, target: np.ndarray) -> Seen:
    order = Order(
      image=subjects.images.image[rows],  # always the clean one
      pixels=regions.cells_to_pixels(target, size, size),
      prototype=subjects.prototypes[rows, rank],
      # Other noise for each rank, whatever top_k is; no split has 2**20 images.
      key=parallel.key_array(seed, rank * 2**20 + subjects.index[rows]),
      source=source,
      target=target,
    )
    return perturb(
      model,
      variables,
      order,
      budget,
      kind=kind,
      rules=rules,
      batch_size=batch_size,
      title=f"{title}, prototype {rank + 1}",
    )

  def find_map(images: np.ndarray, prototype: np.ndarray) -> np.ndarray:
    seen = find(
      model, variables, images, prototype[:, None],
      batch_size=batch_size, survive_jpeg=budget.survive_jpeg,
    )  # fmt: skip
    return seen["similarity_maps"][:, 0]

  return attack, find_map
