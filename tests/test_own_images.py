"""What --images names: test-set indices, files, folders, arrays; and what it must not."""

import io
import os

import miniature
import numpy as np
import pytest

from jprotop.data import decode, own_images
from jprotop.data.dataset import load_dataset
from jprotop.errors import InputError

SIZE = 10


@pytest.fixture(scope="module")
def split(tmp_path_factory):
  base = tmp_path_factory.mktemp("own")
  root = miniature.make_cub(base / "CUB_200_2011")
  return load_dataset("cub", directory=str(root), image_size=SIZE, cache=base / "cache").test


@pytest.fixture
def pictures(tmp_path):
  folder = tmp_path / "pictures"
  for number, name in enumerate(("b.jpg", "a.PNG")):
    kind = "PNG" if name.endswith("PNG") else "JPEG"
    miniature.write(folder / name, miniature.encode(miniature.picture(number), kind))
  miniature.write(folder / "notes.txt", "not an image")
  return folder


def whole(path):
  return decode.resize(decode.decode(path, "image"), SIZE).astype(np.float32) / 255


@pytest.mark.parametrize("argument", ["2,0", " 2 , 0 ,"])
def test_indices_are_images_of_the_split_with_all_that_is_known(argument, split):
  images = own_images.from_argument(argument, split.image_size, lambda: split)
  assert len(images) == 2
  assert images.image_id == [split.image_id[2], split.image_id[0]]
  assert images.label.tolist() == [2, 0]
  np.testing.assert_array_equal(images.image, split.pixels[[2, 0]].astype(np.float32) / 255)
  np.testing.assert_array_equal(images.points[1], split.part_points(0))
  assert images.points[..., 2].any()


@pytest.mark.parametrize(("argument", "index"), [("3", 3), ("0,-1", -1), ("1,77,99", 77)])
def test_an_index_outside_the_split(argument, index, split):
  message = f"image index {index} is outside the test split; it has 3 images, 0 to 2"
  with pytest.raises(InputError, match=message):
    own_images.from_argument(argument, split.image_size, lambda: split)


def test_a_folder_is_its_images_in_order_whole_and_without_labels(pictures, split):
  images = own_images.from_argument(str(pictures), split.image_size, lambda: split)
  assert images.image_id == ["a.PNG", "b.jpg"]
  assert images.label.tolist() == [-1, -1]
  assert images.unreadable == []
  assert not images.points.any()
  assert images.points.shape == (2, 15, 3)
  np.testing.assert_array_equal(images.image[0], whole(pictures / "a.PNG"))


def test_files_come_in_the_order_given(pictures, split):
  images = own_images.from_argument(
    f"{pictures / 'b.jpg'},{pictures / 'a.PNG'}", split.image_size, lambda: split
  )
  assert images.image_id == ["b.jpg", "a.PNG"]
  np.testing.assert_array_equal(images.image[0], whole(pictures / "b.jpg"))


def test_files_are_said_to_be_used_whole(pictures, split, caplog):
  own_images.from_argument("0", split.image_size, lambda: split)
  assert not caplog.text
  own_images.from_argument(str(pictures), split.image_size, lambda: split)
  assert "image files are used whole; if the network was trained on crops" in caplog.text


def test_single_unreadable_files_are_noted_and_left_out(pictures, split):
  miniature.write(pictures / "aa.jpg", "no picture")
  images = own_images.from_argument(str(pictures), split.image_size, lambda: split)
  assert images.image_id == ["a.PNG", "b.jpg"]
  assert len(images.unreadable) == 1
  assert "aa.jpg" in images.unreadable[0]


def test_what_is_named_twice_counts_once(pictures, split, tmp_path):
  images = own_images.from_argument("2,0,2,02", split.image_size, lambda: split)
  assert images.image_id == [split.image_id[2], split.image_id[0]]
  (tmp_path / "link.jpg").symlink_to(pictures / "b.jpg")
  files = f"{pictures / 'b.jpg'},{pictures},{tmp_path / 'link.jpg'},{pictures / '..' / 'link.jpg'}"
  images = own_images.from_argument(files, split.image_size, lambda: split)
  assert images.image_id == ["b.jpg", "a.PNG"]


@pytest.mark.parametrize("suffix", [".jpg", ".npy"])
def test_what_may_never_end_is_not_read(suffix, tmp_path, split):
  os.mkfifo(tmp_path / f"pipe{suffix}")
  (tmp_path / f"zeros{suffix}").symlink_to("/dev/zero")
  for name in ("pipe", "zeros"):
    with pytest.raises(InputError, match=f"{name}{suffix} is a folder, a pipe or a device; give"):
      own_images.from_argument(f"{tmp_path}/{name}{suffix}", split.image_size, lambda: split)


@pytest.mark.parametrize(
  ("argument", "message"),
  [
    ("~nosuchuser/x", "'~nosuchuser/x' is no path: .*; write it out"),
    ("a\0b.jpg", "is no path"),
    ("9" * 5000, "is no path: a name has at most 255 letters"),
    ("1234567890", "1234567890 does not exist"),
  ],
)
def test_what_is_no_path(argument, message, split):
  with pytest.raises(InputError, match=message) as caught:
    own_images.from_argument(argument, split.image_size, lambda: split)
  assert len(str(caught.value)) < 500


def test_nothing_usable(tmp_path, split):
  (tmp_path / "empty").mkdir()
  bad = miniature.write(tmp_path / "bad.jpg", "no picture")
  for argument, message in (
    (str(tmp_path / "empty"), "no image file there"),
    (str(bad), r"(?s)none of them can be used.*bad.jpg"),
    (str(tmp_path / "absent.jpg"), r"absent.jpg does not exist; give a file"),
    ("", "none of them can be used"),
    ("--5", "--5 does not exist"),
  ):
    with pytest.raises(InputError, match=message):
      own_images.from_argument(argument, split.image_size, lambda: split)


def test_an_array_is_taken_as_it_is(tmp_path, split):
  array = np.random.default_rng(0).random((3, SIZE, SIZE, 3), np.float32)
  np.save(tmp_path / "a.npy", array)
  images = own_images.from_argument(str(tmp_path / "a.npy"), split.image_size, lambda: split)
  np.testing.assert_array_equal(images.image, array)
  assert images.image_id == ["a.npy[0]", "a.npy[1]", "a.npy[2]"]
  assert images.label.tolist() == [-1] * 3


@pytest.mark.parametrize(
  ("array", "message"),
  [
    (np.zeros((2, SIZE + 1, SIZE, 3), np.float32), r"shape \(2, 11, 10, 3\); .*\[N, 10, 10, 3\]"),
    (np.zeros((SIZE, SIZE, 3), np.float32), r"shape \(10, 10, 3\)"),
    (np.zeros((0, SIZE, SIZE, 3), np.float32), "N >= 1"),
    (np.zeros((1, SIZE, SIZE, 3), np.uint8), r"uint8 .*must be float32 in \[0, 1\]"),
    (np.full((1, SIZE, SIZE, 3), 1.5, np.float32), "from 1.5 to 1.5"),
    (np.full((1, SIZE, SIZE, 3), -0.1, np.float32), "must be float32"),
    (np.full((1, SIZE, SIZE, 3), np.nan, np.float32), "from nan to nan"),
    (np.array([None, "x"], object), "not a readable .npy file"),
  ],
)
def test_arrays_that_the_network_does_not_take(array, message, tmp_path, split):
  np.save(tmp_path / "a.npy", array, allow_pickle=True)
  with pytest.raises(InputError, match=message):
    own_images.from_argument(str(tmp_path / "a.npy"), split.image_size, lambda: split)


def test_files_that_are_no_arrays(tmp_path, split):
  miniature.write(tmp_path / "a.npy", "hello")
  for name, message in (
    ("a.npy", "a.npy is not a readable .npy file"),
    ("absent.npy", "absent.npy does not exist"),
  ):
    with pytest.raises(InputError, match=message):
      own_images.from_argument(str(tmp_path / name), split.image_size, lambda: split)


def header(shape, dtype="<f4"):
  """The beginning of a .npy file that claims to hold so much."""
  file = io.BytesIO()
  fields = {"descr": dtype, "fortran_order": False, "shape": shape}
  np.lib.format.write_array_header_2_0(file, fields)
  return file.getvalue()


def test_an_array_that_claims_more_than_it_holds(tmp_path, split):
  path = tmp_path / "a.npy"
  for shape in ((640_000_000, SIZE, SIZE, 3), (2**62, SIZE, SIZE, 3), (2, SIZE, SIZE, 3)):
    path.write_bytes(header(shape) + bytes(100))
    with pytest.raises(InputError, match=r"a\.npy is not a readable \.npy file"):
      own_images.from_argument(str(path), split.image_size, lambda: split)


def test_an_array_that_is_too_large_to_be_held(tmp_path, split):
  path, count = tmp_path / "a.npy", 10_000_000
  path.write_bytes(header((count, SIZE, SIZE, 3)))
  os.truncate(path, path.stat().st_size + count * SIZE * SIZE * 3 * 4)  # 12 GB that are nowhere
  with pytest.raises(InputError, match="holds 12 GB, and all of it would be held in memory"):
    own_images.from_argument(str(path), split.image_size, lambda: split)


def test_several_arrays_called_one(tmp_path, split):
  with open(tmp_path / "a.npy", "wb") as file:
    np.savez(file, a=np.zeros(3), b=np.zeros(2))
  with pytest.raises(InputError, match=r"an \.npz of several arrays; save one with numpy\.save"):
    own_images.from_argument(str(tmp_path / "a.npy"), split.image_size, lambda: split)


def test_damaged_arrays_are_one_message(tmp_path, split):
  file = io.BytesIO()
  np.save(file, np.random.default_rng(0).random((1, SIZE, SIZE, 3), np.float32))
  whole, rng = file.getvalue(), np.random.default_rng(0)
  for _ in range(300):
    content = bytearray(whole[: rng.integers(1, len(whole))] if rng.random() < 0.3 else whole)
    for place in rng.integers(0, min(len(content), 128), rng.integers(1, 5)):
      content[place] = rng.integers(256)
    (tmp_path / "a.npy").write_bytes(content)
    try:
      own_images.from_argument(str(tmp_path / "a.npy"), split.image_size, lambda: split)
    except InputError as error:
      assert str(error).isprintable() and len(str(error)) < 600
