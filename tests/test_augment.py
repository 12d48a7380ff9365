import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from jprotop.data import augment as aug
from jprotop.errors import InputError

SIDES = st.integers(1, 90)
SHAPES = st.tuples(SIDES, SIDES) | st.sampled_from(
  [(1, 1), (8, 6), (1, 40), (400, 100), (100, 400), (400, 20), (20, 400), (500, 1), (2, 300)]
)
ANGLES = st.integers(-15, 15)
SEEDS = st.integers(0, 2**32 - 1)


def white(size):
  return Image.new("RGB", size, (255, 255, 255))


def smooth(width, height):
  """A picture that resampling hardly blurs, different in every place."""
  y, x = np.mgrid[:height, :width]
  waves = [np.sin(x / 17), np.cos(y / 13), np.sin((x + 2 * y) / 23)]
  return Image.fromarray((127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8))


def difference(a, b, margin=0):
  """Mean absolute difference of two images, a margin left out."""
  inside = (slice(margin, a.height - margin), slice(margin, a.width - margin))
  return np.abs(np.asarray(a, np.float64)[inside] - np.asarray(b, np.float64)[inside]).mean()


def assert_no_border(image, size):
  assert image.size == size
  assert np.asarray(image).min() == 255


# --- rotate


@settings(deadline=None, max_examples=60)
@given(size=SHAPES, degrees=ANGLES)
def test_rotation_shows_no_border(size, degrees):
  assert_no_border(aug.rotate(white(size), degrees), size)


@pytest.mark.parametrize("size", [(120, 90), (80, 130), (200, 40)])
@pytest.mark.parametrize("degrees", [-15, -4, 1, 9, 15])
def test_rotation_equals_the_three_steps(size, degrees):
  """Turn on a larger canvas, crop the middle, enlarge: what the reference does, step by step."""
  image = smooth(*size)
  canvas = image.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
  width, height = aug.inner_rectangle(*size, degrees)
  middle_x, middle_y = canvas.width / 2, canvas.height / 2
  box = (middle_x - width / 2, middle_y - height / 2, middle_x + width / 2, middle_y + height / 2)
  expected = canvas.resize(size, Image.Resampling.BICUBIC, box=box)
  assert difference(aug.rotate(image, degrees), expected, margin=4) < 2
  assert difference(aug.rotate(image, -degrees), expected, margin=4) > 4 or abs(degrees) == 1


def corners_inside(half_width, half_height, size, degrees):
  """Whether an upright rectangle about the centre lies in the turned picture."""
  angle = math.radians(degrees)
  for x, y in ((half_width, half_height), (half_width, -half_height)):
    across = abs(x * math.cos(angle) + y * math.sin(angle))
    down = abs(y * math.cos(angle) - x * math.sin(angle))
    if across > size[0] / 2 + 1e-9 or down > size[1] / 2 + 1e-9:
      return False
  return True


@settings(deadline=None, max_examples=40)
@given(size=SHAPES, degrees=st.floats(-44, 44).filter(lambda a: abs(a) > 0.01))
@example(size=(300, 250), degrees=15)
def test_inner_rectangle_is_the_largest(size, degrees):
  width, height = aug.inner_rectangle(*size, degrees)
  assert width > 0 and height > 0
  assert corners_inside(width / 2, height / 2, size, degrees)
  for share in np.linspace(0.02, 1, 50):  # A twin by search: for every width the largest height.
    half_width = share * math.hypot(*size) / 2
    low, high = 0.0, math.hypot(*size)
    if not corners_inside(half_width, 0, size, degrees):
      continue
    for _ in range(40):
      middle = (low + high) / 2
      fits = corners_inside(half_width, middle, size, degrees)
      low, high = (middle, high) if fits else (low, middle)
    assert 4 * half_width * low <= width * height * (1 + 1e-6) + 1e-6


def test_rotation_by_zero_is_the_identity():
  assert aug.inner_rectangle(30, 20, 0) == (30, 20)
  assert aug.rotate(smooth(30, 20), 0).tobytes() == smooth(30, 20).tobytes()


# --- shear


@settings(deadline=None, max_examples=60)
@given(size=SHAPES, degrees=st.integers(-10, 10), axis=st.sampled_from("xy"))
def test_shear_shows_no_border(size, degrees, axis):
  assert_no_border(aug.shear(white(size), degrees, axis), size)


@pytest.mark.parametrize("degrees", [-10, -3, 5, 10])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_shear_equals_moving_row_by_row(degrees, axis):
  image = smooth(120, 90)
  upright = image if axis == "x" else image.transpose(Image.Transpose.TRANSPOSE)
  slope = math.tan(math.radians(degrees))
  kept = upright.width - upright.height * abs(slope)
  expected = Image.new("RGB", upright.size)
  for row in range(upright.height):
    place = row + 0.5 if degrees > 0 else row + 0.5 - upright.height
    box = (slope * place, row, slope * place + kept, row + 1)
    line = upright.resize((upright.width, 1), Image.Resampling.BICUBIC, box=box)
    expected.paste(line, (0, row))
  if axis == "y":
    expected = expected.transpose(Image.Transpose.TRANSPOSE)
  assert difference(aug.shear(image, degrees, axis), expected, margin=2) < 1


def test_shear_of_a_long_picture_keeps_half_its_short_side():
  """100 x 10 sheared on y by 45 degrees: only 5 columns fit under each other, 5 pixels high."""
  columns = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None], 10, axis=0)
  sheared = np.asarray(aug.shear(Image.fromarray(np.repeat(columns, 3, axis=2)), 45, "y"))
  assert sheared.min() >= 46 and sheared.max() <= 53


# --- skew


def directions():
  return [*aug._TILTS.items(), *((f"corner {i}", d) for i, d in enumerate(aug._CORNER_SKEWS))]


@pytest.mark.parametrize("name,direction", directions())
@pytest.mark.parametrize("size", [(1, 1), (300, 250), (400, 20), (20, 400), (1, 300), (1600, 1200)])
def test_skews_reach_the_border_everywhere(name, direction, size):
  limit = math.ceil(0.2 * max(size))
  for amount in {1, limit}:
    image = white(size)
    assert_no_border(aug.skew(image, aug.image_corners(image) + amount * direction), size)


def test_names_of_skews():
  """Each tilt moves its own side's two corners, each corner skew one coordinate; all outwards."""
  corners = aug.image_corners(white((10, 6)))
  middle = corners.mean(axis=0)
  for name, direction in directions():
    moved = np.argwhere(direction)
    assert len(moved) == (1 if name.startswith("corner") else 2)
    assert (np.abs(corners + direction - middle) >= np.abs(corners - middle)).all()
  for name, axis, value in (("left", 0, 0), ("right", 0, 10), ("top", 1, 0), ("bottom", 1, 6)):
    assert (corners[np.any(aug._TILTS[name], axis=1), axis] == value).all()
  assert len({direction.tobytes() for _, direction in directions()}) == 12


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, width=st.integers(1, 2000), height=st.integers(1, 2000))
def test_perspective_maps_the_corners(seed, width, height):
  target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
  jitter = np.random.default_rng(seed).uniform(-0.2, 0.2, (4, 2))
  source = target + jitter * (width, height)
  a, b, c, d, e, f, g, h = aug.perspective(source, target)
  for (x, y), expected in zip(source, target):
    below = g * x + h * y + 1
    place = ((a * x + b * y + c) / below, (d * x + e * y + f) / below)
    np.testing.assert_allclose(place, expected, atol=1e-6 * max(width, height))


def test_skew_moves_the_picture_to_the_named_corners():
  image = Image.new("RGB", (100, 80))
  image.paste((255, 0, 0), (0, 0, 10, 10))  # Top left.
  skewed = aug.skew(image, np.array([[30, 20], [100, 0], [100, 80], [0, 80]]))
  assert skewed.getpixel((31, 21)) == (255, 0, 0)  # The middle of the red square.
  assert skewed.getpixel((5, 5)) == (0, 0, 0)
  assert aug.skew(image, aug.image_corners(image)).tobytes() == image.tobytes()


# --- distort


@settings(deadline=None, max_examples=40)
@given(size=SHAPES, rows=st.integers(1, 12), columns=st.integers(1, 12), seed=SEEDS)
@example(size=(1, 49), rows=1, columns=1, seed=0)
def test_no_offsets_is_the_identity(size, rows, columns, seed):
  """To the bit, or to a grey level: 49 * (1 / 49) is a hair below 1, and Pillow rounds down."""
  offsets = np.zeros((rows - 1, columns - 1, 2), int)
  noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
  still = aug.distort(Image.fromarray(noise), offsets)
  assert np.abs(np.asarray(still).astype(int) - noise).max() <= 1
  tiles = {-(-size[0] // columns), size[0] // columns, -(-size[1] // rows), size[1] // rows} - {0}
  if all(side * (1 / side) == 1 for side in tiles):
    image = smooth(*size)
    assert still.tobytes() == noise.tobytes()
    assert aug.distort(image, offsets).tobytes() == image.tobytes()


@settings(deadline=None, max_examples=60)
@given(size=SHAPES, seed=SEEDS)
def test_distortion_shows_no_border(size, seed):
  offsets = np.random.default_rng(seed).integers(-5, 6, (9, 9, 2))
  assert_no_border(aug.distort(white(size), offsets), size)


def test_distortion_pixel_by_pixel():
  """Node offsets interpolated bilinearly, the picture sampled there (nearest, hence loosely)."""
  image = smooth(60, 40)
  offsets = np.random.default_rng(3).integers(-3, 4, (3, 2, 2))  # 4 x 3 tiles of 20 x 10 pixels.
  moves = np.zeros((5, 4, 2))
  moves[1:-1, 1:-1] = offsets
  expected = np.zeros((40, 60, 3), np.uint8)
  for y in range(40):
    for x in range(60):
      row, column = y // 10, x // 20
      v, u = (y + 0.5) / 10 - row, (x + 0.5) / 20 - column
      top = (1 - u) * moves[row, column] + u * moves[row, column + 1]
      bottom = (1 - u) * moves[row + 1, column] + u * moves[row + 1, column + 1]
      dx, dy = (1 - v) * top + v * bottom
      expected[y, x] = image.getpixel((int(x + 0.5 + dx), int(y + 0.5 + dy)))
  distorted = aug.distort(image, offsets)
  assert difference(distorted, Image.fromarray(expected)) < 3
  assert difference(distorted, image) > 4


# --- copies


@settings(deadline=None, max_examples=80)
@given(size=SHAPES, seed=SEEDS, copy=st.integers(0, 39))
def test_every_copy_keeps_the_size_and_shows_no_border(size, seed, copy):
  assert_no_border(aug.augment_copy(white(size), seed=seed, index=5, copy=copy), size)


def test_copies_are_a_function_of_seed_index_and_copy():
  image = smooth(40, 30)

  def make(seed, index, copy):
    return aug.augment_copy(image, seed=seed, index=index, copy=copy).tobytes()

  before = image.tobytes()
  # Distortions have so many outcomes that equal ones mean equal draws.
  places = [(0, 0, 3), (1, 0, 3), (0, 1, 3), (0, 0, 7), (0, 3, 7), (3, 0, 3), (2**40, 1, 39)]
  copies = [make(*place) for place in places]
  assert len(set(copies)) == len(places)
  assert copies == [make(*place) for place in places]
  assert image.tobytes() == before


@pytest.fixture
def recorded(monkeypatch):
  """augment_copy with transforms that only say that they were called; flips can be seen."""
  names = []

  def record(transform):
    def recorder(image, rng):
      names.append(transform.__name__)
      return image

    return recorder

  monkeypatch.setattr(aug, "TRANSFORMS", tuple(map(record, aug.TRANSFORMS)))
  return names


@pytest.mark.parametrize("num_copies", [4, 40, 12])
def test_each_transform_has_an_equal_share(recorded, num_copies):
  for copy in range(num_copies):
    aug.augment_copy(white((4, 4)), seed=0, index=3, copy=copy)
  names = ("random_rotate", "random_skew", "random_shear", "random_distort")
  assert Counter(recorded) == dict.fromkeys(names, num_copies // 4)


def test_copies_are_flipped_by_coin(recorded):
  image = Image.new("L", (2, 1))
  image.putpixel((1, 0), 255)
  draws = 4000
  copies = (aug.augment_copy(image, seed=0, index=i, copy=i % 4) for i in range(draws))
  flips = sum(copy.getpixel((0, 0)) == 255 for copy in copies)
  assert abs(flips / draws - 0.55) < 3.5 * math.sqrt(0.55 * 0.45 / draws)


def test_flip_probability_is_that_of_a_rounded_coin():
  coins = np.round(np.linspace(0, 1, 100_001), 1)
  assert abs((coins <= 0.5).mean() - aug.FLIP_PROBABILITY) < 1e-4


def draws_of(monkeypatch, name, function, image, **limits):
  """The arguments with which `function` calls the transform `name`, 3000 times."""
  calls = []
  monkeypatch.setattr(aug, name, lambda image, *given: calls.append(given) or image)
  rng = np.random.default_rng(0)
  for _ in range(3000):
    function(image, rng, **limits)
  return calls


def test_drawn_rotations(monkeypatch):
  counts = Counter(draws_of(monkeypatch, "rotate", aug.random_rotate, white((9, 9))))
  assert set(counts) == {(degrees,) for degrees in range(-15, 16) if degrees}
  assert min(counts.values()) > 60
  limited = draws_of(monkeypatch, "rotate", aug.random_rotate, white((9, 9)), max_degrees=2)
  assert set(limited) == {(-2,), (-1,), (1,), (2,)}


def test_drawn_shears(monkeypatch):
  counts = Counter(draws_of(monkeypatch, "shear", aug.random_shear, white((9, 9))))
  angles = [degrees for degrees in range(-10, 11) if degrees]
  assert set(counts) == {(degrees, axis) for degrees in angles for axis in "xy"}
  assert min(counts.values()) > 40


def test_drawn_skews(monkeypatch):
  image = white((30, 21))  # ceil(0.2 * 30) = 6 pixels at most.
  calls = draws_of(monkeypatch, "skew", aug.random_skew, image)
  moves = [corners - aug.image_corners(image) for (corners,) in calls]
  assert Counter(int(np.abs(move).max()) for move in moves).keys() == set(range(1, 7))
  names = {np.sign(d).astype(int).tobytes(): name for name, d in directions()}
  counts = Counter(names[np.sign(move).astype(int).tobytes()] for move in moves)
  for name, _ in directions():
    share = 1 / 32 if name.startswith("corner") else 1 / 16 + 1 / 8
    assert abs(counts[name] / 3000 - share) < 4 * math.sqrt(share / 3000)


def test_drawn_distortions(monkeypatch):
  calls = draws_of(monkeypatch, "distort", aug.random_distort, white((9, 9)))
  offsets = np.stack([offsets for (offsets,) in calls])
  assert offsets.shape == (3000, 9, 9, 2)
  assert set(np.unique(offsets)) == set(range(-5, 6))


def test_misuse():
  image = white((4, 4))
  with pytest.raises(InputError, match="mode P"):
    aug.augment_copy(image.convert("P"), seed=0, index=0, copy=0)
  with pytest.raises(InputError, match="axis='z'"):
    aug.shear(image, 5, "z")
  with pytest.raises(InputError, match="degrees=90"):
    aug.shear(image, 90, "x")
  with pytest.raises(InputError, match="degrees=45"):
    aug.rotate(image, 45)
  with pytest.raises(InputError, match=r"\[rows - 1, columns - 1, 2\]"):
    aug.distort(image, np.zeros((9, 9)))
