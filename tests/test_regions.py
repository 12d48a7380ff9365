"""Cells, boxes and masks: OpenCV's upsampling, and partitions for sizes that do not divide."""

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import optimize

from jprotop import regions
from jprotop.errors import InputError

grids = st.tuples(st.integers(1, 9), st.integers(1, 9))


@st.composite
def grid_and_image(draw):
  """A grid [h, w] and an image [H, W] no smaller, mostly not a multiple of it."""
  h, w = draw(grids)
  return (h, w), (draw(st.integers(h, 60)), draw(st.integers(w, 60)))


@st.composite
def box_in_image(draw):
  grid, (height, width) = draw(grid_and_image())
  y0, x0 = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
  y1, x1 = draw(st.integers(y0 + 1, height)), draw(st.integers(x0 + 1, width))
  return grid, (height, width), regions.Box(y0, y1, x0, x1)


# --- upsampling and the box of high activation


@pytest.mark.parametrize(
  ("grid", "image"),
  [((7, 7), (224, 224)), ((7, 7), (100, 61)), ((1, 5), (3, 40)), ((14, 14), (224, 225))],
)
def test_upsample_equals_opencvs_cubic(grid, image):
  maps = np.random.default_rng(0).normal(0, 3, (2, *grid)).astype(np.float32)
  wanted = [cv2.resize(m, image[::-1], interpolation=cv2.INTER_CUBIC) for m in maps]
  np.testing.assert_allclose(regions.upsample(maps, *image), wanted, atol=2e-5)


def test_high_activation_box_is_tight_around_the_top_twentieth():
  rng = np.random.default_rng(1)
  for _ in range(20):
    similarity_map = rng.random((7, 7)).astype(np.float32)
    big = cv2.resize(similarity_map, (112, 112), interpolation=cv2.INTER_CUBIC)
    ordered = np.sort(big.ravel())
    place = 0.95 * (len(ordered) - 1)  # linear interpolation between the two ranks around it
    below = int(place)
    threshold = ordered[below] + (place - below) * (ordered[below + 1] - ordered[below])
    ys, xs = np.nonzero(big >= threshold)
    wanted = (ys.min(), ys.max() + 1, xs.min(), xs.max() + 1)
    box = regions.high_activation_box(similarity_map, 112, 112)
    # The two upsamplings differ by rounding, which may move the border by a pixel.
    assert np.abs(np.subtract(box, wanted)).max() <= 1


def test_box_of_a_single_hot_cell_surrounds_it_and_of_a_flat_map_is_everything():
  similarity_map = np.zeros((7, 7), np.float32)
  similarity_map[2, 5] = 1
  box = regions.high_activation_box(similarity_map, 224, 224)
  assert box.y0 <= 64 + 16 < box.y1 and box.x0 <= 160 + 16 < box.x1
  assert box.y1 - box.y0 < 64 and box.x1 - box.x0 < 64
  assert regions.high_activation_box(np.ones((7, 7)), 224, 224) == (0, 224, 0, 224)


def test_tight_box():
  mask = np.zeros((5, 6), bool)
  mask[1, 4] = mask[3, 2] = True
  assert regions.tight_box(mask) == (1, 4, 2, 5)
  with pytest.raises(ValueError, match="empty"):
    regions.tight_box(np.zeros((5, 6), bool))


# --- cells and pixels


@given(grid_and_image())
def test_cells_partition_the_pixels(sizes):
  grid, image = sizes
  covered = np.zeros(image, int)
  for cell in np.ndindex(grid):
    box = regions.cell_box(cell, grid, image)
    covered[box.y0 : box.y1, box.x0 : box.x1] += 1
    # Rounding moves a border by less than a pixel.
    assert abs(box.y0 - cell[0] * image[0] / grid[0]) < 1
    assert abs(box.x1 - (cell[1] + 1) * image[1] / grid[1]) < 1
  assert (covered == 1).all()


@given(grid_and_image(), st.randoms(use_true_random=False))
def test_complement_of_cells_is_the_complement_in_pixels(sizes, random):
  grid, image = sizes
  cells = np.array([[random.random() < 0.5 for _ in range(grid[1])] for _ in range(grid[0])])
  pixels = regions.cells_to_pixels(cells, *image)
  assert pixels.shape == image
  assert (regions.cells_to_pixels(~cells, *image) == ~pixels).all()
  stacked = regions.cells_to_pixels(np.stack([cells, ~cells]), *image)
  assert (stacked[0] == pixels).all() and (stacked[1] == ~pixels).all()


@given(box_in_image())
def test_box_cells_are_those_that_share_a_pixel_with_the_box(case):
  grid, image, box = case
  wanted = np.zeros(grid, bool)
  for cell in np.ndindex(grid):
    own = regions.cell_box(cell, grid, image)
    wanted[cell] = max(own.y0, box.y0) < min(own.y1, box.y1) and max(own.x0, box.x0) < min(
      own.x1, box.x1
    )
  assert (regions.box_cells(box, grid, image) == wanted).all()


@given(box_in_image())
def test_inclusive_box_cells_also_take_the_cell_of_the_far_corner(case):
  grid, image, box = case
  # As in the reference: floor(lo / cell) .. floor(hi / cell), cut off at the grid.
  (h, w), (height, width) = grid, image
  wanted = np.zeros(grid, bool)
  wanted[box.y0 * h // height : box.y1 * h // height + 1, :] = True
  wanted[:, : box.x0 * w // width] = wanted[:, box.x1 * w // width + 1 :] = False
  found = regions.box_cells(box, grid, image, inclusive=True)
  assert (found == wanted).all()
  assert not (regions.box_cells(box, grid, image) & ~found).any()


def test_a_box_that_ends_on_a_cell_border():
  box = regions.Box(32, 96, 64, 96)
  exact = regions.box_cells(box, (7, 7), (224, 224))
  assert (exact == regions.cell_rectangle((1, 2), (2, 2), (7, 7))).all()
  inclusive = regions.box_cells(box, (7, 7), (224, 224), inclusive=True)
  assert (inclusive == regions.cell_rectangle((1, 2), (3, 3), (7, 7))).all()
  # At the border of the picture there is no further cell to take.
  corner = regions.Box(192, 224, 192, 224)
  assert regions.box_cells(corner, (7, 7), (224, 224), inclusive=True).sum() == 1


@pytest.mark.parametrize(
  ("first", "last", "message"),
  [
    ((0, 7), (0, 7), r"cell \(0, 7\) is outside this network's 7 x 7 grid; .* 0 to 6"),
    ((-1, 0), (0, 0), "outside"),
    ((3, 3), (2, 4), "swap"),
  ],
)
def test_cell_rectangles_off_the_grid_are_refused(first, last, message):
  with pytest.raises(InputError, match=message):
    regions.cell_rectangle(first, last, (7, 7))


def test_cells_bounding_box_fills_the_gap():
  cells = np.zeros((4, 5), bool)
  cells[0, 1] = cells[2, 3] = True
  wanted = regions.cell_rectangle((0, 1), (2, 3), (4, 5))
  assert (regions.cells_bounding_box(cells) == wanted).all()


def test_points_to_cells_takes_visible_points_only():
  points = np.array([[0, 0, 1], [99.9, 49.9, 1], [60, 30, 0]], np.float32)
  cells = regions.points_to_cells(points, (5, 4), (50, 100))
  assert np.argwhere(cells).tolist() == [[0, 0], [4, 3]]


# --- the least active rectangle


def slow_least_active(similarity_map, source):
  """All rectangles off S that fit in its shape: most cells, then lowest mean."""
  rows, columns = np.flatnonzero(source.any(1)), np.flatnonzero(source.any(0))
  tall, broad = np.ptp(rows) + 1, np.ptp(columns) + 1
  best = (0, np.inf)
  for y0, x0 in np.ndindex(source.shape):
    for y1 in range(y0 + 1, min(y0 + tall, source.shape[0]) + 1):
      for x1 in range(x0 + 1, min(x0 + broad, source.shape[1]) + 1):
        if not source[y0:y1, x0:x1].any():
          best = min(best, (-(y1 - y0) * (x1 - x0), similarity_map[y0:y1, x0:x1].mean()))
  return best


@given(st.data())
def test_least_active_rectangle_is_the_best_of_all(data):
  grid = data.draw(grids)
  y0, x0 = (data.draw(st.integers(0, n - 1)) for n in grid)
  y1, x1 = data.draw(st.integers(y0, grid[0] - 1)), data.draw(st.integers(x0, grid[1] - 1))
  source = regions.cell_rectangle((y0, x0), (y1, x1), grid)
  similarity_map = np.random.default_rng(data.draw(st.integers(0, 99))).random(grid)
  found = regions.least_active_rectangle(similarity_map, source)
  if source.all():
    assert found is None
    return
  assert not (found & source).any()
  assert (regions.cells_bounding_box(found) == found).all()
  cells, level = slow_least_active(similarity_map, source)
  assert found.sum() == -cells
  assert similarity_map[found].mean() == pytest.approx(level)


def test_upsample_equals_opencvs_linear_and_keeps_border_cells_equal():
  maps = np.random.default_rng(0).normal(0, 3, (2, 7, 5)).astype(np.float32)
  wanted = [cv2.resize(m, (100, 63), interpolation=cv2.INTER_LINEAR) for m in maps]
  found = regions.upsample(maps, 63, 100, "bilinear")
  np.testing.assert_allclose(found, wanted, atol=2e-5)
  assert (found[:, :4] == found[:, :1]).all() and (found[:, :, -10:] == found[:, :, -1:]).all()


@given(st.integers(0, 2**32 - 1))
def test_tight_boxes_are_those_of_each_mask(seed):
  masks = np.random.default_rng(seed).random((4, 3, 5, 6)) < 0.2
  found = regions.tight_boxes(masks)
  for place in np.ndindex(4, 3):
    wanted = regions.tight_box(masks[place]) if masks[place].any() else (0, 0, 0, 0)
    assert tuple(found[place]) == wanted


places = st.tuples(st.integers(0, 20), st.integers(0, 20))


def slow_off_hull(box, points):
  """Whether no weights of the points, which sum to 1, give a place in the box: a linear program."""
  if not len(points):
    return True
  x, y = points.T
  found = optimize.linprog(
    np.zeros(len(points)),
    A_ub=[x, -x, y, -y],
    b_ub=[box.x1, -box.x0, box.y1, -box.y0],
    A_eq=[np.ones(len(points))],
    b_eq=[1],
  )
  return not found.success


@settings(max_examples=40, deadline=None)
@given(
  st.lists(st.tuples(*[st.integers(0, 20)] * 2), max_size=6), st.tuples(*[st.integers(0, 20)] * 2)
)
@example([(0, 0), (20, 20)], (10, 2))
def test_a_box_is_off_the_hull_where_they_share_no_point(points, corner):
  y, x = corner
  box = regions.Box(y, y + 3, x, x + 4)
  points = np.array(points, float).reshape(-1, 2)
  assert regions.is_off_hull(box, points) == slow_off_hull(box, points)
