"""Data sets as the rest sees them: prepared once, split by seed, pictures by pure functions."""

import inspect
import logging
import os
import subprocess
import sys

import miniature
import numpy as np
import pytest
from PIL import Image

from jprotop.data import augment, decode
from jprotop.data import dataset as dataset_lib
from jprotop.data.alterations import Scheme, jpeg
from jprotop.data.dataset import load_dataset
from jprotop.errors import InputError

SIZE = 12
TOY = {"num_classes": 2, "images_per_class": 3, "size": 48, "seed": 0}


@pytest.fixture
def root(tmp_path):
  return miniature.make_cub(tmp_path / "CUB_200_2011")


def load(root, tmp_path, **fields):
  fields = {"image_size": SIZE, "validation_share": 0, **fields}
  return load_dataset("cub", directory=str(root), cache=tmp_path / "cache", **fields)


# --- Preparing.


def test_preparing_and_reading_needs_no_tensorflow(root, tmp_path):
  program = f"""
import sys
from jprotop.data.dataset import load_dataset
data = load_dataset("cub", directory={str(root)!r}, image_size=8, cache={str(tmp_path / "cache")!r})
assert len(data.train) + len(data.validation) == 9 and len(data.test) == 3
assert data.train.pixels.shape[1:] == (8, 8, 3)
data.train.augmented(0, 0, 0)
print("loaded:", [name for name in ("tensorflow", "torch") if name in sys.modules])
"""
  done = subprocess.run(
    [sys.executable, "-c", program],
    capture_output=True,
    text=True,
    check=False,
    cwd=os.path.dirname(os.path.dirname(__file__)),
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == "loaded: []"


def test_the_second_time_nothing_is_written(root, tmp_path):
  first = load(root, tmp_path)
  pixels = np.array(first.train.pixels)
  before = miniature.tree(tmp_path)
  assert any(name.startswith("cache/") for name in before)
  second = load(root, tmp_path)
  np.testing.assert_array_equal(second.train.pixels, pixels)
  assert miniature.tree(tmp_path) == before
  assert second.train.image_id == first.train.image_id
  np.testing.assert_array_equal(second.train.parts, first.train.parts)
  np.testing.assert_array_equal(second.train.box, first.train.box)


def test_prepared_data_needs_no_second_look_at_the_pictures(root, tmp_path, monkeypatch):
  load(root, tmp_path)

  def never(*_):
    raise AssertionError("decoded again")

  monkeypatch.setattr(decode, "decode", never)
  assert len(load(root, tmp_path).train) == 9


def test_a_changed_picture_is_seen(root, tmp_path):
  before = load(root, tmp_path).train
  at = before.image_id.index("001.Auk/Auk_1.jpg")
  old = np.array(before.pixels)
  other = Image.new("RGB", (80, 60), (250, 0, 0))
  miniature.write(root / "images/001.Auk/Auk_1.jpg", miniature.encode(other))
  after = load(root, tmp_path).train
  assert after.key != before.key
  np.testing.assert_allclose(
    after.pixels[at], np.broadcast_to([250, 0, 0], (SIZE, SIZE, 3)), atol=6
  )
  unchanged = np.arange(len(old)) != at
  np.testing.assert_array_equal(after.pixels[unchanged], old[unchanged])


def test_preparing_is_said_once(root, tmp_path, caplog):
  with caplog.at_level(logging.INFO, logger="jprotop"):
    load(root, tmp_path)
    load(root, tmp_path)
  assert [r.getMessage().split(" in ")[0] for r in caplog.records if r.name == "jprotop"] == [
    "preparing cub (once)"
  ]


def test_other_code_of_decode_is_another_data_set(root, tmp_path, monkeypatch):
  """The boxes that are stored come from it."""
  before = load(root, tmp_path).train.key
  source = inspect.getsource

  def changed(module):
    return source(module) + ("# changed" if module is decode else "")

  monkeypatch.setattr(inspect, "getsource", changed)
  assert load(root, tmp_path).train.key != before


def test_toybirds_of_other_settings_are_another_data_set(tmp_path):
  def toy(**changes):
    fields = {**TOY, **changes}
    return load_dataset("toybirds", image_size=8, cache=tmp_path, toy=fields, validation_share=0)

  base = toy().train
  assert len(base) == 6
  assert base.parts[..., 2].any()
  assert toy().train.key == base.key
  assert toy(seed=1).train.key != base.key
  assert not np.array_equal(toy(seed=1).train.pixels, base.pixels)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"name": "birds"}, r"data.name='birds' is not known; .*cub, folder, toybirds"),
    ({"validation_share": 1.0}, r"validation_share=1.0 is outside \[0, 1\)"),
    ({"validation_share": -0.1}, r"validation_share=-0.1 is outside \[0, 1\)"),
    ({"validation_share": 0.9}, r"classes without a training image: toy_.*data.validation_share"),
    ({"toy": {**TOY, "num_classes": 1}}, r"num_classes=1"),
  ],
)
def test_wrong_settings_are_named(fields, message, tmp_path):
  fields = {"name": "toybirds", "image_size": 8, "toy": TOY, "cache": tmp_path, **fields}
  with pytest.raises(InputError, match=message):
    load_dataset(fields.pop("name"), **fields)


def test_a_cache_that_cannot_be_written(tmp_path):
  place = miniature.write(tmp_path / "file", "not a folder")
  with pytest.raises(InputError, match=r"cannot prepare toybirds in .*--config.data.cache"):
    load_dataset("toybirds", image_size=8, cache=place, toy=TOY)


def test_unknown_and_empty_splits(root, tmp_path):
  data = load(root, tmp_path)
  assert data.split("test") is data.test
  with pytest.raises(InputError, match="split='dev' is not known; it must be train, validation or"):
    data.split("dev")
  with pytest.raises(InputError, match="validation split is empty"):
    data.split("validation")


# --- Validation split.


def split_ids(root, tmp_path, **fields):
  data = load(root, tmp_path, **fields)
  return data.train.image_id, data.validation.image_id


def test_each_class_gives_its_share_and_the_order_stays(root, tmp_path):
  data = load(root, tmp_path, validation_share=1 / 3, seed=3)
  assert np.bincount(data.validation.label).tolist() == [1, 1, 1]
  assert np.bincount(data.train.label).tolist() == [2, 2, 2]
  whole = load(root, tmp_path).train
  assert sorted(data.train.image_id + data.validation.image_id) == sorted(whole.image_id)
  for split in (data.train, data.validation):
    positions = [whole.image_id.index(image_id) for image_id in split.image_id]
    assert positions == sorted(positions)
    np.testing.assert_array_equal(split.rows, positions)
    for name in ("label", "box", "parts"):
      np.testing.assert_array_equal(getattr(split, name), getattr(whole, name)[positions])
    np.testing.assert_array_equal(split.pixels, whole.pixels[positions])


def test_the_share_is_drawn_by_seed_and_the_test_set_is_never_touched(root, tmp_path):
  drawn = [split_ids(root, tmp_path, validation_share=1 / 3, seed=seed) for seed in range(6)]
  assert split_ids(root, tmp_path, validation_share=1 / 3, seed=4) == drawn[4]
  assert len({tuple(validation) for _, validation in drawn}) > 1
  tests = [load(root, tmp_path, validation_share=v, seed=7).test.image_id for v in (0, 1 / 3)]
  assert tests[0] == tests[1]


def test_no_validation(root, tmp_path):
  train, validation = split_ids(root, tmp_path, validation_share=0)
  assert len(train) == 9
  assert validation == []


# --- Pictures.


def by_hand(root, image_id, box):
  """Decode, crop and resize with Pillow alone."""
  x, y, w, h = box
  with Image.open(root / "images" / image_id) as image:
    crop = np.asarray(image.convert("RGB"))[int(y) : int(y + h), int(x) : int(x + w)]
  return np.asarray(Image.fromarray(crop).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def test_pixels_are_decoded_cropped_and_resized(root, tmp_path):
  boxes = {f"{miniature.CLASSES[row[0] - 1]}/{row[1]}": row[3] for row in miniature.CUB_IMAGES}
  data = load(root, tmp_path)
  for split in (data.train, data.test):
    assert split.pixels.shape == (len(split), SIZE, SIZE, 3)
    for row, image_id in enumerate(split.image_id):
      assert split.source[row]["image"] == (root / "images" / image_id).read_bytes()
    for image_id, pixels in zip(split.image_id, split.pixels):
      np.testing.assert_array_equal(pixels, by_hand(root, image_id, boxes[image_id]))


def test_augmented_copies_depend_on_image_copy_and_seed_alone(root, tmp_path):
  train = load(root, tmp_path).train
  asked = [(i, copy) for i in range(3) for copy in range(4)]
  forwards = {key: train.augmented(*key, 5) for key in asked}
  backwards = {key: train.augmented(*key, 5) for key in reversed(asked)}
  for key in asked:
    np.testing.assert_array_equal(forwards[key], backwards[key])
  pictures = [picture.tobytes() for picture in forwards.values()]
  pictures += [train.augmented(0, 0, 6).tobytes(), train.pixels[0].tobytes()]
  assert len(set(pictures)) == len(pictures)


def test_an_image_keeps_its_copies_whatever_is_held_out(root, tmp_path):
  whole = load(root, tmp_path).train
  part = load(root, tmp_path, validation_share=1 / 3, seed=1).train
  for i, image_id in enumerate(part.image_id):
    expected = whole.augmented(whole.image_id.index(image_id), 2, 0)
    np.testing.assert_array_equal(part.augmented(i, 2, 0), expected)


def test_stored_copies_are_the_same_image_by_image_or_none_beyond_the_limit(
  root, tmp_path, monkeypatch
):
  train = load(root, tmp_path).train
  stored = train.stored_copies(2, 5)
  assert stored.shape == (2 * len(train), SIZE, SIZE, 3)
  for j, pixels in enumerate(stored):
    np.testing.assert_array_equal(pixels, train.augmented(j // 2, j % 2, 5))
  assert not np.array_equal(train.stored_copies(2, 6), stored)
  monkeypatch.setattr(dataset_lib, "MAX_STORED_COPIES_BYTES", stored.nbytes - 1)
  assert train.stored_copies(2, 5) is None
  monkeypatch.setattr(dataset_lib, "MAX_STORED_COPIES_BYTES", stored.nbytes)
  assert train.stored_copies(2, 5) is not None


# --- Parts.

DOT = (255, 0, 0)


@pytest.mark.parametrize("box", [(10.0, 20.0, 60.0, 40.0), (-0.5, 20.4, 60.2, 61.3)])
def test_part_points_fall_on_the_part_in_the_crop(box, tmp_path):
  """A red dot painted at the annotated place is red where part_points says, also for boxes that
  step over the border by less than a pixel."""
  root = miniature.make_cub(tmp_path / "CUB_200_2011")
  names = (root / "images.txt").read_text().splitlines()
  chosen = names[0].split()[1]
  points = {3: (30.5, 40.5), 7: (55.5, 57.5), 12: (5.5, 5.5)}  # the last one is outside both boxes
  image = Image.new("RGB", (100, 81))
  for x, y in points.values():
    image.paste(DOT, (int(x) - 2, int(y) - 2, int(x) + 3, int(y) + 3))
  miniature.write(root / "images" / chosen, miniature.encode(image, "PNG"))
  rows = [
    f"1 {part} {points[part][0]} {points[part][1]} 1" if part in points else f"1 {part} 0.0 0.0 0"
    for part in range(1, 16)
  ]
  others = (root / "parts/part_locs.txt").read_text().splitlines()[15:]
  miniature.write(root / "parts/part_locs.txt", "\n".join(rows + others))
  boxes = (root / "bounding_boxes.txt").read_text().splitlines()
  boxes[0] = f"1 {' '.join(str(v) for v in box)}"
  miniature.write(root / "bounding_boxes.txt", "\n".join(boxes))
  train = load(root, tmp_path, image_size=64).train
  at = train.image_id.index(chosen)
  found = train.part_points(at)
  assert np.flatnonzero(found[:, 2]).tolist() == [2, 6]
  left, top, width, height = decode.pixel_box(box, image.size)
  for part in (3, 7):
    x, y, _ = found[part - 1]
    expected = ((points[part][0] - left) * 64 / width, (points[part][1] - top) * 64 / height)
    np.testing.assert_allclose((x, y), expected, rtol=1e-6)
    np.testing.assert_allclose(train.pixels[at][int(y), int(x)], DOT, atol=30)


# --- JPEG compression of chosen classes (Section 4).


def test_jpeg_acts_on_exactly_the_chosen_classes_before_the_resize(root, tmp_path):
  data = load(root, tmp_path)
  squeezed = data.train.altered(Scheme("jpeg", 20, (1,)))
  chosen = data.train.label == 1
  assert chosen.any() and not chosen.all()
  for i in range(len(data.train)):
    expected = data.train.crop(i)
    if chosen[i]:
      expected = jpeg.compress(expected, 20)
    np.testing.assert_array_equal(squeezed.pixels[i], decode.resize(expected, SIZE))
    same = np.array_equal(squeezed.pixels[i], data.train.pixels[i])
    assert same != chosen[i]


def test_jpeg_acts_after_the_augmentation(root, tmp_path):
  squeezed = load(root, tmp_path).train.altered(Scheme("jpeg", 5))
  image = augment.augment_copy(squeezed.crop(2), seed=0, index=int(squeezed.rows[2]), copy=1)
  expected = decode.resize(jpeg.compress(image, 5), SIZE)
  np.testing.assert_array_equal(squeezed.augmented(2, 1, 0), expected)
  np.testing.assert_array_equal(squeezed.stored_copies(2, 0)[2 * 2 + 1], expected)


def test_a_data_set_is_compressed_in_all_its_splits_and_remains_the_same_images(root, tmp_path):
  data = load(root, tmp_path, validation_share=0.3)
  squeezed = data.altered(Scheme("jpeg", 20))
  for name in ("train", "validation", "test"):
    assert getattr(squeezed, name).scheme == Scheme("jpeg", 20)
    assert getattr(data, name).scheme is None
  assert squeezed.identity == data.identity
