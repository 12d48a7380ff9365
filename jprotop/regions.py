"""Where things are: half-open boxes, latent cells, boolean masks, and the box of high activation.

A cell is (row, column) on the latent grid [h, w]. A pixel box is half-open, (y0, y1, x0, x1).
Pixel y belongs to the cell row y * h // H, so the cells partition the picture for any sizes.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from jprotop.errors import InputError


class Box(NamedTuple):
  """Half-open pixel box: rows y0..y1-1, columns x0..x1-1."""

  y0: int
  y1: int
  x0: int
  x1: int


def _cubic(t: np.ndarray, a: float = -0.75) -> np.ndarray:
  """Keys' cubic kernel with OpenCV's a = -0.75 (Pillow and jax.image.resize use -0.5)."""
  t = np.abs(t)
  near = ((a + 2) * t - (a + 3)) * t * t + 1
  far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
  return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


@functools.lru_cache(maxsize=64)
def _cubic_matrix(size: int, cells: int) -> np.ndarray:
  """[size, cells] weights of OpenCV's INTER_CUBIC, pixel centres aligned, edge replicated."""
  source = (np.arange(size, dtype=np.float64) + 0.5) * cells / size - 0.5
  start = np.floor(source).astype(int)
  matrix = np.zeros((size, cells))
  for offset in (-1, 0, 1, 2):
    column = np.clip(start + offset, 0, cells - 1)
    np.add.at(matrix, (np.arange(size), column), _cubic(source - (start + offset)))
  matrix = matrix.astype(np.float32)
  matrix.flags.writeable = False
  return matrix


def upsample(maps: np.ndarray, height: int, width: int) -> np.ndarray:
  """Maps [..., h, w] to float32 [..., height, width], as cv2.resize(..., INTER_CUBIC) does."""
  maps = np.asarray(maps, np.float32)
  rows = _cubic_matrix(height, maps.shape[-2])
  columns = _cubic_matrix(width, maps.shape[-1])
  return rows @ maps @ columns.T


def tight_box(mask: np.ndarray) -> Box:
  """Smallest box around the True pixels of a mask [H, W]; ValueError if there are none."""
  rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
  if not rows.size:
    raise ValueError("the mask is empty, so no box surrounds it; it must have a True entry")
  return Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def high_activation_box(
  similarity_map: np.ndarray, height: int, width: int, percentile: float = 95
) -> Box:
  """ProtoPNet's box of high activation of one map [h, w], in pixels of a height x width image.

  The map is upsampled with OpenCV's cubic kernel; the box is tight around the values at or above
  their 95th percentile (linear interpolation).
  """
  upsampled = upsample(similarity_map, height, width)
  return tight_box(upsampled >= np.percentile(upsampled, percentile))


def box_cells(
  box: Box, grid: tuple[int, int], image_size: tuple[int, int], *, inclusive: bool = False
) -> np.ndarray:
  """Boolean [h, w] of the cells that a pixel box overlaps: the paper's S from the box.

  Args:
    box: half-open pixel box.
    grid: (h, w) of the latent map.
    image_size: (H, W) in pixels.
    inclusive: also take the cell of the pixel just below and right of the box, as the
      reference code does even when the box ends on a cell border (protocol `authors`).
  """
  cells = np.zeros(grid, bool)
  last = 0 if inclusive else 1
  (h, w), (height, width) = grid, image_size
  rows = slice(box.y0 * h // height, (box.y1 - last) * h // height + 1)
  columns = slice(box.x0 * w // width, (box.x1 - last) * w // width + 1)
  cells[rows, columns] = True
  return cells


def cell_rectangle(first: tuple[int, int], last: tuple[int, int], grid: tuple[int, int]):
  """Boolean [h, w] of the cells first..last, both inclusive, each (row, column).

  Raises:
    InputError: a cell is outside the grid, or `last` lies before `first`.
  """
  for row, column in (first, last):
    if not (0 <= row < grid[0] and 0 <= column < grid[1]):
      raise InputError(
        f"cell ({row}, {column}) is outside this network's {grid[0]} x {grid[1]} grid; rows go "
        f"from 0 to {grid[0] - 1} and columns from 0 to {grid[1] - 1}"
      )
  if last[0] < first[0] or last[1] < first[1]:
    raise InputError(f"the last cell {last} lies before the first cell {first}; swap them")
  cells = np.zeros(grid, bool)
  cells[first[0] : last[0] + 1, first[1] : last[1] + 1] = True
  return cells


def cells_bounding_box(cells: np.ndarray) -> np.ndarray:
  """The smallest full rectangle of cells around the given ones, boolean [h, w]."""
  box = tight_box(cells)
  filled = np.zeros_like(cells)
  filled[box.y0 : box.y1, box.x0 : box.x1] = True
  return filled


def cells_to_pixels(cells: np.ndarray, height: int, width: int) -> np.ndarray:
  """Boolean pixel masks [..., height, width] of the area of boolean cells [..., h, w]."""
  h, w = cells.shape[-2:]
  rows = np.arange(height) * h // height
  columns = np.arange(width) * w // width
  return cells[..., rows[:, None], columns[None, :]]


def cell_box(cell: tuple[int, int], grid: tuple[int, int], image_size: tuple[int, int]) -> Box:
  """Pixel box of one cell."""
  cells = cell_rectangle(cell, cell, grid)
  return tight_box(cells_to_pixels(cells, *image_size))


def points_to_cells(
  points: np.ndarray, grid: tuple[int, int], image_size: tuple[int, int]
) -> np.ndarray:
  """Boolean [h, w] of the cells around the visible points of [K, 3] (x, y, visible) in pixels.

  An annotated part is a point, but has an extent: its cells are those that a square of one cell's
  size, centred on the point, overlaps; 2 x 2 of them, unless the point sits at the border.
  """
  cells = np.zeros(grid, bool)
  for x, y, visible in points:
    if visible:
      row, column = y * grid[0] / image_size[0], x * grid[1] / image_size[1]
      rows = slice(max(0, math.floor(row - 0.5)), math.ceil(row + 0.5))
      columns = slice(max(0, math.floor(column - 0.5)), math.ceil(column + 0.5))
      cells[rows, columns] = True
  return cells


def least_active_rectangle(similarity_map: np.ndarray, source: np.ndarray) -> np.ndarray | None:
  """The rectangle of cells, of the shape of S and off S, where a map [h, w] is lowest on average.

  Where S is so large that its shape does not fit beside it, the largest smaller rectangle that
  does is taken.

  Args:
    similarity_map: [h, w].
    source: boolean [h, w], the cells S.

  Returns:
    Boolean [h, w]; None if S covers the whole grid.
  """
  grid = similarity_map.shape
  box = tight_box(source)
  best = None
  for height in range(box.y1 - box.y0, 0, -1):
    for width in range(box.x1 - box.x0, 0, -1):
      for y in range(grid[0] - height + 1):
        for x in range(grid[1] - width + 1):
          if source[y : y + height, x : x + width].any():
            continue
          level = float(similarity_map[y : y + height, x : x + width].mean())
          # More cells first, then the lower level; the first in row-major order wins ties.
          rank = (-height * width, level)
          if best is None or rank < best[0]:
            best = (rank, (y, x, height, width))
  if best is None:
    return None
  y, x, height, width = best[1]
  return cell_rectangle((y, x), (y + height - 1, x + width - 1), grid)


def max_over_cells(maps: np.ndarray, cells: np.ndarray) -> np.ndarray:
  """Maximum of maps [N, h, w] over boolean cells [N, h, w], [N]."""
  return np.where(cells, maps, -np.inf).max(axis=(1, 2))


def peak_inside(maps: np.ndarray, cells: np.ndarray) -> np.ndarray:
  """Whether the first maximum of each map [N, h, w] lies in its cells."""
  flat = maps.reshape(len(maps), -1)
  return cells.reshape(len(maps), -1)[np.arange(len(maps)), flat.argmax(axis=1)]
