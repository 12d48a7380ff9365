"""What the strongest attack is aimed at: off S, from the head to the stomach, or anywhere.

The success rate's S_noisy is all that lies off S. Two more ask for a place: from the head to the
stomach, which is the paper's own picture of the attack and which few images give by themselves, and
a rectangle that is drawn at random, which no similarity chose.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float32, Int

from jprotop import regions
from jprotop.attacks.cases import RULES, group_of_map, part_indices, source_cells
from jprotop.attacks.in_turn import Subjects

# Where noise may be, from the least of it to the most. These are different threat models, and what
# one of them reaches the larger ones reach with the same picture.
MASKS = ("S_noisy", "S and S_noisy", "whole image")

_Made = Callable[[int, int, Bool[np.ndarray, "h w"]], Bool[np.ndarray, "h w"] | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Aims:
  """What is to be moved where, of N images.

  Attributes:
    image: in [0, 1].
    index: places in the split; they name the noise, which so depends on nothing else.
    prototype: whose map the noise acts on.
    prediction: the class that the network sees in the clean image.
    source, target: the cells S and S_noisy.
  """

  image: Float32[np.ndarray, "N S S 3"]
  index: Int[np.ndarray, " N"]
  prototype: Int[np.ndarray, " N"]
  prediction: Int[np.ndarray, " N"]
  source: Bool[np.ndarray, "N h w"]
  target: Bool[np.ndarray, "N h w"]

  def __len__(self) -> int:
    return len(self.image)

  def of(self, rows: Bool[np.ndarray, " N"] | Int[np.ndarray, " n"]) -> "Aims":
    """Some of them: boolean [N], or places."""
    kept = {f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)}
    return Aims(**kept)

  def pixels(self, mask: str) -> Bool[np.ndarray, "N S S"]:
    """Where noise may be."""
    size = self.image.shape[1]
    cells = {
      "S_noisy": self.target,
      "S and S_noisy": self.source | self.target,
      "whole image": np.ones_like(self.target),
    }[mask]
    return regions.cells_to_pixels(cells, size, size)


def off_source(subjects: Subjects, rank: int) -> tuple[Int[np.ndarray, " n"], Aims]:
  """The prototype of that rank of each image, away from S: S_noisy is its complement.

  Returns:
    The images that have such an aim: S does not cover their grid; and the aims.
  """
  return _collect(subjects, [rank] * len(subjects.index), lambda i, rank, source: ~source)


def random_rectangle(subjects: Subjects, seed: int) -> tuple[Int[np.ndarray, " n"], Aims]:
  """The top prototype of each image, to a rectangle off S that is drawn from the seed."""

  def draw(i, rank, source):
    rng = np.random.default_rng([seed, int(subjects.index[i])])
    return regions.random_rectangle(source, rng)

  return _collect(subjects, [0] * len(subjects.index), draw)


def head_to_stomach(subjects: Subjects, seed: int = 0) -> tuple[Int[np.ndarray, " n"], Aims]:
  """Of each image's prototypes the most activated one that sits on the head, to the stomach.

  Images without such a prototype, or whose stomach is not visible or lies within S, have no aim.
  Nothing is drawn, so the seed is without meaning.
  """
  size, stomach = subjects.images.image.shape[1], part_indices("stomach")

  def first_on_head(i):
    points = subjects.images.points[i]
    groups = (group_of_map(similarity_map, points, size) for similarity_map in subjects.maps[i])
    return next((rank for rank, group in enumerate(groups) if group == "head"), None)

  def to_stomach(i, rank, source):
    points = subjects.images.points[i][stomach]
    cells = regions.points_to_cells(points, source.shape, (size, size))
    return cells & ~source

  return _collect(subjects, [first_on_head(i) for i in range(len(subjects.index))], to_stomach)


def _collect(
  subjects: Subjects, ranks: list[int | None], target_of: _Made
) -> tuple[Int[np.ndarray, " n"], Aims]:
  """The images for which there is a target, and their aims.

  Args:
    ranks: of each image's prototype; None: it has none.
    target_of: from (image, rank, S) to S_noisy; None, or no cell: it has none.
  """
  size, kept = subjects.images.image.shape[1], []
  for i, rank in enumerate(ranks):
    if rank is None:
      continue
    source = source_cells(subjects.maps[i, rank], size, RULES["paper"])
    target = target_of(i, rank, source)
    if target is not None and target.any():
      kept.append((i, rank, source, target))
  grid = subjects.maps.shape[2:]
  rows, places = (np.array([one[k] for one in kept], int) for k in (0, 1))
  source, target = (np.array([one[k] for one in kept], bool).reshape(-1, *grid) for k in (2, 3))
  return rows, Aims(
    image=subjects.images.image[rows],
    index=subjects.index[rows],
    prototype=subjects.prototypes[rows, places],
    prediction=subjects.prediction[rows],
    source=source,
    target=target,
  )


# The places beside off S, by their names in configs and tables.
TARGETS: dict[str, Callable[[Subjects, int], tuple[Int[np.ndarray, " n"], Aims]]] = {
  "head to stomach": head_to_stomach,
  "random rectangle": random_rectangle,
}
