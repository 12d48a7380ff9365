"""Where things are: half-open boxes, latent cells, boolean masks, and the box of high activation.

A cell is (row, column) on the latent grid [h, w]. A pixel box is half-open, (y0, y1, x0, x1).
Pixel y belongs to the cell row y * h // H, so the cells partition the picture for any sizes.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Real

from jprotop.errors import InputError


class Box(NamedTuple):
  """Half-open pixel box: rows y0..y1-1, columns x0..x1-1."""

  y0: int
  y1: int
  x0: int
  x1: int


def _cubic(t: Float[np.ndarray, " n"], a: float = -0.75) -> Float[np.ndarray, " n"]:
  """Keys' cubic kernel with OpenCV's a = -0.75 (Pillow and jax.image.resize use -0.5)."""
  t = np.abs(t)
  near = ((a + 2) * t - (a + 3)) * t * t + 1
  far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
  return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


@functools.lru_cache(maxsize=64)
def _cubic_matrix(size: int, cells: int) -> Float32[np.ndarray, "{size} {cells}"]:
  """Weights of OpenCV's INTER_CUBIC, pixel centres aligned, edge replicated."""
  source = (np.arange(size, dtype=np.float64) + 0.5) * cells / size - 0.5
  return _weights(source, (-1, 0, 1, 2), _cubic, cells)


@functools.lru_cache(maxsize=64)
def _bilinear_matrix(size: int, cells: int) -> np.ndarray:
  """[size, cells] weights of linear interpolation, pixel centres aligned, edge replicated.

  Exactly 1 outside the outermost centres, so that a border cell gives equal pixels there.
  """
  source = (np.arange(size, dtype=np.float64) + 0.5) * cells / size - 0.5
  return _weights(np.clip(source, 0, cells - 1), (0, 1), lambda t: 1 - np.abs(t), cells)


def _weights(source: np.ndarray, offsets: tuple, kernel: Callable, cells: int) -> np.ndarray:
  start = np.floor(source).astype(int)
  matrix = np.zeros((len(source), cells))
  for offset in offsets:
    column = np.clip(start + offset, 0, cells - 1)
    np.add.at(matrix, (np.arange(len(source)), column), kernel(source - (start + offset)))
  matrix = matrix.astype(np.float32)
  matrix.flags.writeable = False
  return matrix


KERNELS = {"cubic": _cubic_matrix, "bilinear": _bilinear_matrix}


def upsample(
  maps: Real[np.ndarray, "*maps h w"], height: int, width: int, kernel: str = "cubic"
) -> Float32[np.ndarray, "*maps {height} {width}"]:
  """Maps at the size of their pictures.

  Args:
    kernel: "cubic", as cv2.resize(..., INTER_CUBIC) does; or "bilinear", as PyTorch's interpolate
      does with align_corners=False.
  """
  maps = np.asarray(maps, np.float32)
  rows = KERNELS[kernel](height, maps.shape[-2])
  columns = KERNELS[kernel](width, maps.shape[-1])
  return rows @ maps @ columns.T


def tight_box(mask: Bool[np.ndarray, "H W"]) -> Box:
  """Smallest box around the True pixels of a mask; ValueError if there are none."""
  rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
  if not rows.size:
    raise ValueError("the mask is empty, so no box surrounds it; it must have a True entry")
  return Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def tight_boxes(masks: Bool[np.ndarray, "*masks H W"]) -> Int[np.ndarray, "*masks 4"]:
  """The same of many masks, (y0, y1, x0, x1); zeros of an empty one."""
  ends = []
  for axis in (-1, -2):
    line = np.asarray(masks.any(axis=axis))
    some, size = line.any(axis=-1), line.shape[-1]
    ends += [line.argmax(axis=-1), np.where(some, size - line[..., ::-1].argmax(axis=-1), 0)]
  return np.stack(ends, axis=-1)


def high_activation_box(
  similarity_map: Real[np.ndarray, "h w"], height: int, width: int, percentile: float = 95
) -> Box:
  """ProtoPNet's box of high activation of one map, in pixels of a height x width image.

  The map is upsampled with OpenCV's cubic kernel; the box is tight around the values at or above
  their 95th percentile (linear interpolation).
  """
  upsampled = upsample(similarity_map, height, width)
  return tight_box(upsampled >= np.percentile(upsampled, percentile))


def box_cells(
  box: Box, grid: tuple[int, int], image_size: tuple[int, int], *, inclusive: bool = False
) -> Bool[np.ndarray, "h w"]:
  """The cells that a pixel box overlaps: the paper's S from the box.

  Args:
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


def cell_rectangle(
  first: tuple[int, int], last: tuple[int, int], grid: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
  """The cells first..last, both inclusive, each (row, column).

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


def cells_bounding_box(cells: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
  """The smallest full rectangle of cells around the given ones."""
  box = tight_box(cells)
  filled = np.zeros_like(cells)
  filled[box.y0 : box.y1, box.x0 : box.x1] = True
  return filled


def cells_to_pixels(
  cells: Bool[np.ndarray, "*masks h w"], height: int, width: int
) -> Bool[np.ndarray, "*masks {height} {width}"]:
  """Pixel masks of the area of cells."""
  h, w = cells.shape[-2:]
  rows = np.arange(height) * h // height
  columns = np.arange(width) * w // width
  return cells[..., rows[:, None], columns[None, :]]


def cell_box(cell: tuple[int, int], grid: tuple[int, int], image_size: tuple[int, int]) -> Box:
  """Pixel box of one cell."""
  cells = cell_rectangle(cell, cell, grid)
  return tight_box(cells_to_pixels(cells, *image_size))


def points_to_cells(
  points: Real[np.ndarray, "K 3"], grid: tuple[int, int], image_size: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
  """The cells around the visible ones of points (x, y, visible) in pixels.

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


def free_rectangles(source: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "N h w"]:
  """All rectangles of cells of the shape of S that lie off S, in row-major order.

  Where S is so large that its shape does not fit beside it, those of the smaller shapes, none wider
  or higher, that fit and have most cells. None where S covers the whole grid.

  Args:
    source: the cells S.
  """
  grid, box = source.shape, tight_box(source)
  sizes = [(h, w) for h in range(box.y1 - box.y0, 0, -1) for w in range(box.x1 - box.x0, 0, -1)]
  most, found = 0, []
  for height, width in sorted(sizes, key=lambda size: -size[0] * size[1]):  # It keeps the order.
    if height * width < most:
      break
    covered = np.lib.stride_tricks.sliding_window_view(source, (height, width)).any(axis=(2, 3))
    for y, x in np.argwhere(~covered).tolist():
      most = height * width
      found.append(cell_rectangle((y, x), (y + height - 1, x + width - 1), grid))
  return np.stack(found) if found else np.zeros((0, *grid), bool)


def least_active_rectangle(
  similarity_map: Real[np.ndarray, "h w"], source: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"] | None:
  """Of `free_rectangles` the first where a map is lowest on average; None if there is none.

  Args:
    source: the cells S.
  """
  free = free_rectangles(source)
  if not len(free):
    return None
  return free[int(np.argmin([similarity_map[cells].mean() for cells in free]))]


def random_rectangle(
  source: Bool[np.ndarray, "h w"], rng: np.random.Generator
) -> Bool[np.ndarray, "h w"] | None:
  """One of `free_rectangles`, each as likely as another; None if there is none."""
  free = free_rectangles(source)
  return free[int(rng.integers(len(free)))] if len(free) else None


def peak_cell(similarity_map: Real[np.ndarray, "h w"]) -> tuple[int, int]:
  """(row, column) of a map's first maximum: where its prototype is found."""
  row, column = np.unravel_index(np.argmax(similarity_map), np.shape(similarity_map))
  return int(row), int(column)


def peak_box(similarity_map: Real[np.ndarray, "h w"], height: int, width: int) -> Box:
  """The pixels of a map's strongest cell in a height x width image."""
  return cell_box(peak_cell(similarity_map), np.shape(similarity_map), (height, width))


def max_over_cells(
  maps: Real[np.ndarray, "N h w"], cells: Bool[np.ndarray, "N h w"]
) -> Float[np.ndarray, " N"]:
  """Maximum of each map over its cells; minus infinity where it has none."""
  return np.where(cells, maps, -np.inf).max(axis=(1, 2))


def peak_inside(
  maps: Real[np.ndarray, "N h w"], cells: Bool[np.ndarray, "N h w"]
) -> Bool[np.ndarray, " N"]:
  """Whether the first maximum of each map lies in its cells."""
  flat = maps.reshape(len(maps), -1)
  return cells.reshape(len(maps), -1)[np.arange(len(maps)), flat.argmax(axis=1)]


def is_off_hull(box: Box, points: Real[np.ndarray, "K 2"]) -> bool:
  """Whether a pixel box and the convex hull of points (x, y) have no point in common.

  Two convex shapes are apart where they are apart along the normal of an edge of one of them; of
  the hull, an edge joins two of the points. Without a point there is no hull, so the box is off.
  """
  if not len(points):
    return True
  ends = np.stack(np.meshgrid([box.x0, box.x1], [box.y0, box.y1]), axis=-1).reshape(-1, 2)
  along = (points[:, None] - points[None]).reshape(-1, 2)
  normals = np.concatenate([np.eye(2), np.stack([-along[:, 1], along[:, 0]], axis=1)])
  of_box, of_hull = ends @ normals.T, points @ normals.T
  apart = (of_box.max(0) < of_hull.min(0)) | (of_hull.max(0) < of_box.min(0))
  return bool(apart.any())
