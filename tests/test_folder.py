"""A user's own images in train/CLASS/ and test/CLASS/, with and without boxes."""

import re
import shutil

import miniature
import numpy as np
import pytest

from jprotop.data import decode, own_images
from jprotop.data.dataset import load_dataset
from jprotop.data.folder import ImageFolder
from jprotop.errors import InputError


@pytest.fixture
def root(tmp_path):
  return miniature.make_folder(tmp_path / "images")


def load(root, tmp_path, **fields):
  fields = {"image_size": 8, "validation_share": 0, **fields}
  return load_dataset("folder", directory=str(root), cache=tmp_path / "cache", **fields)


def test_classes_labels_and_names_are_sorted(root, tmp_path):
  dataset = load(root, tmp_path)
  assert dataset.class_names == ["ape", "bee"]
  assert dataset.train.image_id == [
    f"train/{n}/{n}_{i}.jpg" for n in ("ape", "bee") for i in range(4)
  ]
  assert dataset.train.label.tolist() == [0] * 4 + [1] * 4
  assert dataset.test.image_id == [
    "test/ape/ape_0.jpg",
    "test/ape/ape_1.jpg",
    "test/bee/bee_0.jpg",
  ]
  assert dataset.test.label.tolist() == [0, 0, 1]
  assert not dataset.train.parts.any()


def test_without_boxes_images_are_used_whole(root, tmp_path):
  train = load(root, tmp_path).train
  assert train.box.tolist() == [[0, 0, *miniature.SIZE]] * 8
  for i in range(8):
    assert train.crop(i).size == miniature.SIZE
    whole = decode.decode(root / train.image_id[i], "image")
    np.testing.assert_array_equal(train.pixels[i], decode.resize(whole, 8))


def test_an_image_of_a_folder_can_be_pointed_at(root, tmp_path):
  images = own_images.from_split(load(root, tmp_path).train, [5])
  assert images.image_id == ["train/bee/bee_1.jpg"]
  assert not images.points.any()


def test_boxes_apply_to_the_images_they_name_and_others_stay_whole(root, tmp_path, caplog):
  lines = ("train/ape/ape_1.jpg 2.7 3.2 30.6 20.9", "", "test/bee/bee_0.jpg 0 0 10 30")
  miniature.write(root / "boxes.txt", "\n".join(lines) + "\n")
  dataset = load(root, tmp_path)
  assert dataset.train.box[:2].tolist() == [[0, 0, 40, 30], [2, 3, 31, 21]]
  assert dataset.test.box[2].tolist() == [0, 0, 10, 30]
  assert dataset.train.crop(1).size == (31, 21)
  assert re.search(r"\d+ of \d+ images in .* have no box; they are used whole", caplog.text)


def test_names_with_spaces_are_fine(root, tmp_path):
  miniature.write(root / "train/ape/old ape 7.jpg", miniature.encode(miniature.picture(3)))
  miniature.write(root / "boxes.txt", "train/ape/old ape 7.jpg 1 2 10 10\n")
  train = load(root, tmp_path).train
  at = train.image_id.index("train/ape/old ape 7.jpg")
  assert train.box[at].tolist() == [1, 2, 10, 10]


def test_a_byte_order_mark_before_the_boxes_is_passed_over(root):
  (root / "boxes.txt").write_text("train/ape/ape_0.jpg 0 0 5 5\n", encoding="utf-8-sig")
  assert ImageFolder(str(root)).boxes == {"train/ape/ape_0.jpg": (0, 0, 5, 5)}


def test_a_class_that_is_not_tested_is_named(root, caplog):
  ImageFolder(str(root))
  assert not caplog.text
  shutil.rmtree(root / "test/bee")
  ImageFolder(str(root))
  assert "test has no image of bee" in caplog.text


@pytest.mark.parametrize(
  "line", ["train/ape/ape_1.jpg 1 2 3", "train/ape/ape_1.jpg 1 2 3 wide", "hello"]
)
def test_a_malformed_box_is_named(line, root):
  miniature.write(root / "boxes.txt", f"train/ape/ape_0.jpg 0 0 5 5\n{line}\n")
  with pytest.raises(InputError, match=rf"boxes.txt, line 2: '{line}' is not `PATH x y w h`"):
    ImageFolder(str(root))


def test_a_box_for_an_image_that_is_not_there(root):
  miniature.write(root / "boxes.txt", "train/ape/ape_77.jpg 0 0 5 5\n")
  with pytest.raises(InputError, match=r"line 1: there is no image 'train/ape/ape_77.jpg'"):
    ImageFolder(str(root))


@pytest.mark.parametrize("box", ["0 0 50 10", "0 0 0 0", "nan 0 5 5"])
def test_a_box_without_pixels_or_outside_is_refused(box, root, tmp_path):
  miniature.write(root / "boxes.txt", f"test/ape/ape_0.jpg {box}\n")
  with pytest.raises(InputError, match=r"1 of 3 test images cannot be used:\s+test/ape/ape_0.jpg"):
    load(root, tmp_path)


def test_only_images_directly_in_a_class_folder_count(root):
  before = ImageFolder(str(root)).files
  for name in (
    "train/notes.txt",
    "train/ape/notes.txt",
    "train/ape/.hidden.jpg",
    "train/.git/x.jpg",
  ):
    miniature.write(root / name, "not an image")
  miniature.write(root / "train/ape/more/deep.jpg", miniature.encode(miniature.picture(1)))
  miniature.write(root / "train/ape/album.jpg/inside.txt", "a folder with an image's name")
  found = ImageFolder(str(root))
  assert found.files == before
  assert found.class_names == ["ape", "bee"]


@pytest.mark.parametrize("name", ["APE.JPG", "ape.Jpeg", "ape.PNG", "ape.bmp", "ape.webp"])
def test_suffixes_of_any_case_and_kind(name, root, tmp_path):
  kind = {"jpg": "JPEG", "jpeg": "JPEG"}.get(name.split(".")[1].lower(), name.split(".")[1].upper())
  miniature.write(root / "train/ape" / name, miniature.encode(miniature.picture(9), kind))
  train = load(root, tmp_path).train
  assert len(train) == 9
  assert f"train/ape/{name}" in train.image_id


def test_a_class_without_training_images(root):
  (root / "train/cat").mkdir()
  miniature.write(root / "train/cat/readme.txt", "soon")
  with pytest.raises(InputError, match=r"class 'cat' has no training image in .*train/cat"):
    ImageFolder(str(root))


def test_a_class_only_in_test(root):
  miniature.write(root / "test/dog/dog.jpg", miniature.encode(miniature.picture(1)))
  with pytest.raises(InputError, match="test has classes that train/ lacks: dog"):
    ImageFolder(str(root))


def test_a_class_only_in_train_is_fine(root, tmp_path):
  miniature.write(root / "train/cat/cat.jpg", miniature.encode(miniature.picture(1)))
  dataset = load(root, tmp_path)
  assert dataset.class_names == ["ape", "bee", "cat"]
  assert dataset.test.label.tolist() == [0, 0, 1]


def test_folders_that_are_not_data_sets(root, tmp_path):
  with pytest.raises(InputError, match="is not a folder"):
    ImageFolder(str(tmp_path / "nowhere"))
  with pytest.raises(InputError, match="is not a folder"):
    ImageFolder("")
  with pytest.raises(InputError, match=r"has no folder train/"):
    ImageFolder(str(root / "train"))
  one_class = miniature.make_folder(tmp_path / "one", train=(3,), test=(1,))
  with pytest.raises(InputError, match="has 1 classes; at least 2"):
    ImageFolder(str(one_class))


def test_an_empty_test_set(tmp_path):
  root = miniature.make_folder(tmp_path / "images", test=(0, 0))
  (root / "test").mkdir()
  with pytest.raises(InputError, match="the test split has no image"):
    load(root, tmp_path)


def test_corrupt_images_of_both_kinds_are_named(root, tmp_path):
  for name in ("train/ape/ape_3.jpg", "train/bee/bee_0.jpg"):
    miniature.write(root / name, "no picture")
  with pytest.raises(InputError, match=r"(?s)2 of 8 train images.*ape_3.jpg.*bee_0.jpg"):
    load(root, tmp_path)
