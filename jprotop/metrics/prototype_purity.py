"""Purity: do the image patches that a prototype likes best hold the same part of the object?

  purity(maps, parts, weights=weights, pairs=CUB_PAIRS).value
  rows = [patch_peaks(batch) for batch ...]; purity_of(merge(rows), parts, ...)

Nauta et al., "PIP-Net" (CVPR 2023), and its released code; docs/metrics/purity.md.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Real

from jprotop.errors import InputError
from jprotop.metrics import checks
from jprotop.metrics.checks import Array
from jprotop.metrics.estimate import Estimate

# Left and right eye, leg and wing among CUB's fifteen parts: the first counts as the second.
CUB_PAIRS = ((6, 10), (7, 11), (8, 12))
PATCH_SIZE = 32 / 224
# A prototype with no weight above this plays no role in any class.
RELEVANT = 1e-5


class PatchPeaks(NamedTuple):
  """Where each prototype is highest on its own grid: a row an image.

  Attributes:
    score: float [N, P], the maximum of each map.
    cell: int16 [N, P, 2], (row, column) of it; of equals the first in row-major order.
    column_first: int16 [N, P, 2], of equals the first in column-major order, as PIP-Net has it.
    grid: (h, w).
  """

  score: Float[np.ndarray, "N P"]
  cell: Int[np.ndarray, "N P 2"]
  column_first: Int[np.ndarray, "N P 2"]
  grid: tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Purity(Estimate):
  """The mean over prototypes of their purity.

  Attributes:
    std: over prototypes, of the population.
    over_half: the share of prototypes of a purity above 0.5.
    most_frequent: the mean purity of the part that each prototype hits most often.
    by_prototype: float [P], NaN of those that are not relevant, or have no patch.
    part: int [P], the part of that purity (of a pair, the second); -1 where there is none.
  """

  std: float | None
  over_half: Estimate
  most_frequent: Estimate
  by_prototype: Float[np.ndarray, " P"] = dataclasses.field(repr=False)
  part: Int[np.ndarray, " P"] = dataclasses.field(repr=False)


def patch_peaks(maps: Float[Array, "N h w P"]) -> PatchPeaks:
  """Where each prototype is highest in each image, on the native grid.

  Raises:
    InputError: a map is not finite.
  """
  xp = jnp if isinstance(maps, jax.Array) else np
  if not (np.ndim(maps) == 4 and maps.size and bool(xp.isfinite(maps).all())):
    checks.maps(maps)  # It says what is wrong.
  count, h, w, prototypes = maps.shape
  return patch_peaks_at(
    np.asarray(maps.max(axis=(1, 2)), np.float32),
    np.asarray(maps.reshape(count, h * w, prototypes).argmax(axis=1)),
    np.asarray(maps.swapaxes(1, 2).reshape(count, h * w, prototypes).argmax(axis=1)),
    (h, w),
  )


def patch_peaks_at(
  score: Float[np.ndarray, "N P"],
  by_row: Int[np.ndarray, "N P"],
  by_column: Int[np.ndarray, "N P"],
  grid: tuple[int, int],
) -> PatchPeaks:
  """The same of maps that were looked through elsewhere, such as on a device.

  Args:
    score: the maxima.
    by_row, by_column: their cells, counted in row-major and in column-major order.
    grid: (h, w).
  """
  if not np.isfinite(score).all():
    image, prototype = np.argwhere(~np.isfinite(score))[0]
    raise InputError(
      f"the map of prototype {prototype} holds {score[image, prototype]} in image {image}; all "
      "values must be finite, so mend the network"
    )
  h, w = grid
  return PatchPeaks(
    score,
    np.stack([by_row // w, by_row % w], axis=-1).astype(np.int16),
    np.stack([by_column % h, by_column // h], axis=-1).astype(np.int16),
    (h, w),
  )


def purity(
  maps: Float[Array, "N h w P"],
  parts: Real[Array, "n L 3"] | None,
  *,
  weights: Float[Array, "Q C"] | None = None,
  pairs: Sequence[tuple[int, int]] = CUB_PAIRS,
  top_k: int | None = 10,
  min_score: float = -np.inf,
  image_size: int = 224,
  definition: str = "paper",
) -> Purity:
  """The mean over prototypes of the share of their best patches that hold one and the same part.

  Args:
    maps: similarity maps of all images.
    parts: (x, y, visible) in pixels of the image that the network sees.
    weights: of the last layer; a prototype none of whose weights exceeds 1e-5 is left out. None:
      all count.
    pairs: (left, right) parts that count as one, the right one; () for none.
    top_k: how many images of highest score; None: all.
    min_score: only images whose score is above it.
    image_size: S, the side of that image.
    definition: "paper": the share of all patches of a prototype; "released": of those on whose
      image the part is visible, so that a part seen once and hit once is pure.

  Raises:
    InputError: there are no parts, an array or index does not fit, or a map is not finite.
  """
  return purity_of(
    patch_peaks(maps), parts,
    weights=weights, pairs=pairs, top_k=top_k, min_score=min_score,
    image_size=image_size, definition=definition,
  )  # fmt: skip


def purity_of(
  peaks: PatchPeaks,
  parts: Real[Array, "n L 3"] | None,
  *,
  weights: Float[Array, "Q C"] | None = None,
  pairs: Sequence[tuple[int, int]] = CUB_PAIRS,
  top_k: int | None = 10,
  min_score: float = -np.inf,
  image_size: int = 224,
  definition: str = "paper",
) -> Purity:
  """The same from `patch_peaks` of all images."""
  checks.definition(definition)
  count, num_prototypes = peaks.score.shape
  points = checks.parts(parts, count)
  checks.indices(np.array(pairs, int), points.shape[1], "pairs: part")
  if top_k is not None and top_k < 1:
    raise InputError(f"top_k={top_k} must be at least 1, or None for all images")
  chosen = _best(peaks.score, top_k, min_score) & _relevant(weights, num_prototypes)
  image, prototype = np.nonzero(chosen)
  released = definition == "released"
  cells = peaks.column_first if released else peaks.cell
  low, high = patch_box(cells[image, prototype], peaks.grid, image_size)
  inside = _inside(points[image], low, high, closed=released)
  hit, seen = _merged(inside, pairs), _merged(points[image, :, 2] > 0, pairs)
  shape = (num_prototypes, points.shape[1])
  hits, visible = np.zeros(shape, int), np.zeros(shape, int)
  np.add.at(hits, prototype, hit)
  np.add.at(visible, prototype, seen)
  patches = np.bincount(prototype, minlength=num_prototypes)
  total = visible if released else np.broadcast_to(patches[:, None], shape)
  return _summary(hits, total, patches)


def patch_box(
  cell: Int[np.ndarray, "M 2"], grid: tuple[int, int], image_size: int = 224
) -> tuple[Real[np.ndarray, "M 2"], Real[np.ndarray, "M 2"]]:
  """The first and the last edge, each (y, x), of the 32 of 224 pixels that a cell stands for.

  Cells are round((S - patch) / (cells - 1)) pixels apart; the last one ends with the image.
  """
  patch = round(PATCH_SIZE * image_size)
  size = np.array(grid)
  step = np.array([round((image_size - patch) / max(n - 1, 1)) for n in grid])
  low = np.minimum(cell * step, image_size - patch)
  low = np.where(cell == size - 1, image_size - patch, low)
  return low, low + patch


def _best(score: np.ndarray, top_k: int | None, min_score: float) -> np.ndarray:
  """Bool [N, P]: the images of highest score of each prototype, of equals the first."""
  above = score > min_score
  if top_k is None:
    return above
  best = np.zeros(score.shape, bool)
  order = np.argsort(-score, axis=0, kind="stable")[:top_k]
  np.put_along_axis(best, order, True, axis=0)
  return best & above


def _relevant(weights: Array | None, num_prototypes: int) -> np.ndarray:
  if weights is None:
    return np.ones(num_prototypes, bool)
  weights = np.asarray(weights)
  if weights.ndim != 2 or len(weights) != num_prototypes:
    raise InputError(
      f"weights has the shape {weights.shape}; it must be [{num_prototypes}, C]: prototypes and "
      "classes"
    )
  return np.asarray((weights > RELEVANT).any(axis=1))


def _inside(points: np.ndarray, low: np.ndarray, high: np.ndarray, *, closed: bool) -> np.ndarray:
  """Bool [M, L]: visible parts in the patch of each of M images."""
  at, low, high = points[..., [1, 0]], low[:, None], high[:, None]
  with np.errstate(invalid="ignore"):  # Where a part is not visible, its place may be NaN.
    inside = (low <= at) & ((at <= high) if closed else (at < high))
  return np.asarray(inside.all(axis=2) & (points[..., 2] > 0))


def _merged(found: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
  """Booleans [M, L] with the first of each pair counted as the second, and nothing of itself."""
  found = found.copy()
  for left, right in pairs:
    found[:, right] |= found[:, left]
    found[:, left] = False
  return found


def _summary(hits: np.ndarray, total: np.ndarray, patches: np.ndarray) -> Purity:
  """From hits and what they are out of, [P, L], and the number of patches [P]."""
  share = np.divide(hits, total, out=np.zeros(hits.shape), where=total > 0)
  some, rows = patches > 0, np.arange(len(hits))
  part, often = share.argmax(axis=1), hits.argmax(axis=1)
  pure = np.where(some, share[rows, part], np.nan)
  return Purity.of_mean(
    pure, "prototype",
    std=float(pure[some].std()) if some.any() else None,
    over_half=Estimate.of_share(pure[some] > 0.5, "prototype"),
    most_frequent=Estimate.of_mean(np.where(some, share[rows, often], np.nan), "prototype"),
    by_prototype=pure,
    part=np.where(some, part, -1),
  )  # fmt: skip
