import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jprotop.data.alterations import Scheme, choose_classes, jpeg
from jprotop.errors import InputError


def noise(width, height, seed=0):
  values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
  return Image.fromarray(values)


@settings(deadline=None, max_examples=30)
@given(width=st.integers(1, 40), height=st.integers(1, 40), quality=st.integers(1, 95))
def test_equals_a_file_written_and_read_again(width, height, quality):
  image = noise(width, height)
  file = io.BytesIO()
  image.save(file, format="JPEG", quality=quality)  # Pillow's defaults otherwise: 4:2:0.
  compressed = jpeg.compress(image, quality)
  assert compressed.size == image.size and compressed.mode == "RGB"
  with Image.open(file) as expected:
    assert np.array_equal(np.asarray(compressed), np.asarray(expected))


def test_lower_quality_is_further_away():
  image = noise(64, 48)
  original = np.asarray(image, np.float64)
  errors = [np.abs(np.asarray(jpeg.compress(image, q)) - original).mean() for q in (95, 50, 20, 1)]
  assert errors == sorted(errors) and errors[0] < errors[-1]


def test_chroma_survives_only_without_subsampling():
  stripes = np.zeros((16, 16, 3), np.uint8)
  stripes[:, ::2], stripes[:, 1::2] = (255, 0, 0), (0, 0, 255)
  image = Image.fromarray(stripes)
  errors = [
    np.abs(np.asarray(jpeg.compress(image, 95, subsampling=s), np.float64) - stripes).mean()
    for s in ("4:4:4", "4:2:2", "4:2:0")
  ]
  assert errors[0] < 10 < errors[1] and errors[2] > 10


def test_input_is_left_alone():
  image = noise(8, 8)
  before = image.tobytes()
  jpeg.compress(image, 5)
  assert image.tobytes() == before


@pytest.mark.parametrize("quality", [0, 96, -1, 20.5])
def test_quality_out_of_range(quality):
  with pytest.raises(InputError, match=r"quality=.* from 1 to 95"):
    jpeg.compress(noise(4, 4), quality)


def test_other_misuse():
  with pytest.raises(InputError, match="4:2:0"):
    jpeg.compress(noise(4, 4), 20, subsampling="4:1:1")
  with pytest.raises(InputError, match="mode L"):
    jpeg.compress(Image.new("L", (4, 4)), 20)


# --- Which classes (Section 4).


def test_half_is_a_random_half_that_the_seed_decides():
  drawn = [choose_classes("half", 200, seed) for seed in (0, 0, 1)]
  assert [len(set(classes)) for classes in drawn] == [100] * 3
  assert drawn[0] == drawn[1] != drawn[2]
  assert min(drawn[0]) >= 0 and max(drawn[0]) < 200


def test_odd_labels_count_from_zero():
  assert choose_classes("odd", 6, 0) == (1, 3, 5)


def test_labels_as_told():
  assert choose_classes("4, 0", 6, 0) == (0, 4)


@pytest.mark.parametrize(
  "rule, message",
  [
    ("", "chooses 0 of 3"),
    ("0,1,2", "chooses 3 of 3"),
    ("3", "label 3 does not exist"),
    ("-1", "label -1 does not exist"),
    ("even", "must be half, odd, or labels"),
  ],
)
def test_classes_that_make_no_experiment(rule, message):
  with pytest.raises(InputError, match=message):
    choose_classes(rule, 3, 0)


@pytest.mark.parametrize("quality", [0, 96, -1])
def test_a_scheme_of_no_quality(quality):
  with pytest.raises(InputError, match="from 1 to 95"):
    Scheme("jpeg", quality)


def test_a_scheme_covers_its_classes_or_all():
  label = np.array([0, 1, 2, 1])
  assert Scheme("jpeg", 20, (1,)).covers(label).tolist() == [False, True, False, True]
  assert Scheme("jpeg", 20).covers(label).all()
