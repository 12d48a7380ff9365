"""CUB-200-2011: its text files, archives and downloads, and every way they can be wrong."""

import hashlib
import io
import shutil
import tarfile

import file_server
import miniature
import numpy as np
import pytest

from jprotop.data import cub
from jprotop.data.dataset import load_dataset
from jprotop.errors import InputError


@pytest.fixture
def root(tmp_path):
  return miniature.make_cub(tmp_path / "CUB_200_2011")


def read(path, cache):
  return cub.Annotations(cub.locate(str(path), cache))


def load(path, tmp_path):
  return load_dataset("cub", directory=str(path), image_size=8, cache=tmp_path / "cache")


def make_archive(path, folder):
  with tarfile.open(path, "w:gz") as tar:
    tar.add(folder, folder.name)
  return path


def edit(path, number, line):
  """Replaces line `number`, from 1, of a text file."""
  lines = path.read_text().splitlines()
  lines[number - 1] = line
  path.write_text("\n".join(lines) + "\n")


# --- What the text files say.


def test_images_are_sorted_by_class_folder_and_then_by_file_name(root, tmp_path):
  annotations = read(root, tmp_path)
  assert tuple(annotations.image_ids) == miniature.SORTED_CUB


def test_label_is_class_id_minus_one(root, tmp_path):
  annotations = read(root, tmp_path)
  assert tuple(annotations.class_names) == miniature.CLASSES
  assert tuple(annotations.label) == miniature.SORTED_LABEL


def test_official_split_and_boxes_follow_their_images(root, tmp_path):
  annotations = read(root, tmp_path)
  by_name = {
    f"{miniature.CLASSES[c - 1]}/{name}": (train, box)
    for c, name, train, box in miniature.CUB_IMAGES
  }
  assert tuple(annotations.is_train) == miniature.SORTED_TRAIN
  for image_id, is_train, box in zip(annotations.image_ids, annotations.is_train, annotations.box):
    assert (is_train, tuple(box)) == (by_name[image_id][0], pytest.approx(by_name[image_id][1]))


def test_parts_are_in_pixels_and_zero_where_invisible(root, tmp_path):
  annotations = read(root, tmp_path)
  assert annotations.parts.shape == (12, 15, 3)
  number = {
    f"{miniature.CLASSES[row[0] - 1]}/{row[1]}": i for i, row in enumerate(miniature.CUB_IMAGES, 1)
  }
  for image_id, parts in zip(annotations.image_ids, annotations.parts):
    for part in range(1, 16):
      x, y, visible = miniature.part_location(number[image_id], part)
      np.testing.assert_allclose(parts[part - 1], (x, y, 1) if visible else (0, 0, 0))


def test_the_splits_of_the_data_set_hold_the_official_images(root, tmp_path):
  dataset = load_dataset(
    "cub", directory=str(root), image_size=8, cache=tmp_path / "cache", validation_share=0
  )
  expected = {
    split: [
      n
      for n, train in zip(miniature.SORTED_CUB, miniature.SORTED_TRAIN)
      if train == (split == "train")
    ]
    for split in ("train", "test")
  }
  assert dataset.train.image_id == expected["train"]
  assert dataset.test.image_id == expected["test"]
  assert dataset.class_names == list(miniature.CLASSES)
  assert dataset.train.label.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
  # Boxes come as the whole pixels that the reference crops: (2.7, 3.2, 30.6, 20.9) truncates so.
  at = dataset.train.image_id.index("002.Bittern/bittern_1.jpg")
  assert dataset.train.box[at].tolist() == [2, 3, 31, 21]
  assert dataset.train.crop(at).size == (31, 21)


@pytest.mark.parametrize("given", ["folder", "parent", "archive"])
def test_folder_parent_and_archive_are_the_same(given, root, tmp_path):
  expected = read(root, tmp_path / "cache")
  path = {
    "folder": root,
    "parent": root.parent,
    "archive": make_archive(tmp_path / "cub.tgz", root),
  }[given]
  found = read(path, tmp_path / "cache")
  assert found.image_ids == expected.image_ids
  assert found.class_names == expected.class_names
  for name in ("label", "is_train", "box", "parts"):
    np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
  for ours, theirs in zip(found.examples("train"), expected.examples("train")):
    assert ours["image"] == theirs["image"]


def test_an_archive_is_unpacked_once(root, tmp_path):
  archive = make_archive(tmp_path / "cub.tgz", root)
  cub.locate(str(archive), tmp_path / "cache")
  before = miniature.tree(tmp_path / "cache")
  cub.locate(str(archive), tmp_path / "cache")
  assert miniature.tree(tmp_path / "cache") == before


@pytest.mark.parametrize(
  ("name", "change"),
  [
    ("CUB_200_2011/parts/part_locs.txt", lambda text: text.replace(b"1 1 ", b"1 2 ", 1)),
    (f"CUB_200_2011/images/{miniature.SORTED_CUB[0]}", lambda content: content[:-5]),
    ("files.json", lambda text: b""),
  ],
)
def test_an_unpacked_archive_that_is_damaged_is_unpacked_anew(name, change, root, tmp_path, caplog):
  archive = make_archive(tmp_path / "cub.tgz", root)
  folder = cub.locate(str(archive), tmp_path / "cache").parent
  before = (folder / name).read_bytes()
  (folder / name).write_bytes(change(before))
  assert cub.locate(str(archive), tmp_path / "cache").parent == folder
  assert (folder / name).read_bytes() == before
  assert f"{folder} " in caplog.text and "made anew" in caplog.text


def test_a_changed_annotation_or_image_is_another_fingerprint(root, tmp_path):
  seen = {read(root, tmp_path).fingerprint()}
  edit(root / "bounding_boxes.txt", 1, "1 2.0 3.0 20.0 20.0")
  seen.add(read(root, tmp_path).fingerprint())
  miniature.write(
    root / "images" / miniature.SORTED_CUB[0], miniature.encode(miniature.picture(77))
  )
  seen.add(read(root, tmp_path).fingerprint())
  assert len(seen) == 3
  assert read(root, tmp_path).fingerprint() in seen


# --- Errors.


@pytest.mark.parametrize("path", ["", "nowhere"])
def test_a_missing_folder_is_named_with_the_remedy(path, tmp_path):
  given = str(tmp_path / path) if path else ""
  with pytest.raises(InputError, match=r"does not exist.*--config.data.dir"):
    cub.locate(given, tmp_path)


@pytest.mark.parametrize("name", ["classes.txt", "parts/part_locs.txt", "images"])
def test_missing_parts_of_the_folder_are_listed(name, root, tmp_path):
  path = root / name
  shutil.rmtree(path) if path.is_dir() else path.unlink()
  with pytest.raises(InputError, match=f"{name} missing"):
    cub.locate(str(root), tmp_path)


def test_missing_images_are_counted_and_the_first_is_named(root, tmp_path):
  for name in (miniature.SORTED_CUB[3], miniature.SORTED_CUB[8]):
    (root / "images" / name).unlink()
  with pytest.raises(
    InputError, match=f"lacks 2 of 12 images, the first is {miniature.SORTED_CUB[3]}"
  ):
    load(root, tmp_path)


@pytest.mark.parametrize(
  ("name", "line"),
  [
    ("images.txt", "2"),
    ("images.txt", "two 001.Auk/Auk_2.jpg"),
    ("image_class_labels.txt", "2 first"),
    ("train_test_split.txt", "2"),
    ("bounding_boxes.txt", "2 1.0 1.0 5.0"),
    ("bounding_boxes.txt", "2 1.0 1.0 5.0 wide"),
    ("bounding_boxes.txt", "2 1.0 1.0 5.0 5.0 5.0"),
    ("parts/part_locs.txt", "1 2 3.0"),
    ("parts/part_locs.txt", "1 16 3.0 3.0 1"),
  ],
)
def test_a_malformed_line_is_named(name, line, root, tmp_path):
  edit(root / name, 2, line)
  with pytest.raises(InputError, match=rf"{name}, line 2: '{line}'"):
    read(root, tmp_path)


def test_text_files_that_do_not_belong_together(root, tmp_path):
  edit(root / "bounding_boxes.txt", 2, "99 0.0 0.0 5.0 5.0")
  with pytest.raises(InputError, match=r"1 images have no box, the first is 001.Auk/Auk_2.jpg"):
    read(root, tmp_path)


def test_a_class_that_classes_txt_lacks(root, tmp_path):
  edit(root / "image_class_labels.txt", 2, "2 4")
  with pytest.raises(InputError, match=r"class that classes.txt lacks"):
    read(root, tmp_path)


def test_an_empty_image_list(root, tmp_path):
  (root / "images.txt").write_text("")
  with pytest.raises(InputError, match="names no image"):
    read(root, tmp_path)


def test_all_boxes_outside_their_image_are_named_and_nothing_is_left(root, tmp_path):
  edit(root / "bounding_boxes.txt", 2, "2 30.0 0.0 20.0 20.0")
  edit(root / "bounding_boxes.txt", 6, "6 0.0 0.0 0.4 20.0")
  with pytest.raises(InputError) as caught:
    load(root, tmp_path)
  message = str(caught.value)
  assert "2 of 9 train images cannot be used" in message
  assert "001.Auk/Auk_2.jpg: box (x=30, y=0, width=20, height=20) of a 40 x 30 image" in message
  assert "003.Crane/crane_2.jpg: box" in message
  assert "correct the bounding box" in message
  assert not miniature.tree(tmp_path / "cache")


def test_all_corrupt_images_are_named_and_nothing_is_left(root, tmp_path):
  bad = (miniature.SORTED_CUB[0], miniature.SORTED_CUB[9])
  whole = (root / "images" / bad[0]).read_bytes()
  miniature.write(root / "images" / bad[0], whole[: len(whole) // 2])
  miniature.write(root / "images" / bad[1], "no picture")
  with pytest.raises(InputError) as caught:
    load(root, tmp_path)
  assert all(name in str(caught.value) for name in bad)
  assert "2 of 9 train images" in str(caught.value)
  assert not miniature.tree(tmp_path / "cache")
  # Once repaired, the same call works: a failed attempt is not remembered.
  for name in bad:
    miniature.write(root / "images" / name, miniature.encode(miniature.picture(5)))
  assert len(load(root, tmp_path).train) == 9


# --- Archives.


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "link"])
def test_an_archive_that_would_write_elsewhere_is_refused(name, tmp_path):
  archive = tmp_path / "work" / "cub.tgz"
  archive.parent.mkdir()
  with tarfile.open(archive, "w:gz") as tar:
    member = tarfile.TarInfo(name)
    if name == "link":
      member.type, member.linkname = tarfile.SYMTYPE, "../../../outside"
      tar.addfile(member)
    else:
      member.size = 4
      tar.addfile(member, io.BytesIO(b"evil"))
  with pytest.raises(InputError, match=r"cub.tgz cannot be unpacked .*download it again"):
    cub.locate(str(archive), tmp_path / "cache")
  assert not miniature.tree(tmp_path / "cache")
  assert not list(tmp_path.rglob("outside*"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "no archive", "empty"])
def test_a_broken_archive(damage, root, tmp_path):
  archive = make_archive(tmp_path / "cub.tgz", root)
  data = bytearray(archive.read_bytes())
  if damage == "cut":
    data = data[: len(data) // 2]
  elif damage == "flipped":
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
  else:
    data = bytearray(b"hello, this is no archive" if damage == "no archive" else b"")
  archive.write_bytes(data)
  with pytest.raises(InputError, match=r"(?s)cub.tgz cannot be unpacked .*download it again"):
    cub.locate(str(archive), tmp_path / "cache")
  assert not list((tmp_path / "cache" / "unpacked").iterdir())


# --- Downloads.


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv("no_proxy", "127.0.0.1")
  with file_server.serve() as running:
    yield running


MD5 = hashlib.md5(file_server.CONTENT).hexdigest()


def test_the_archive_is_downloaded_once(server, tmp_path):
  path = cub.download(tmp_path / "new", url=server.url(), md5=MD5)
  assert path == tmp_path / "new" / "CUB_200_2011.tgz"
  assert list(miniature.tree(tmp_path)) == ["new/CUB_200_2011.tgz"]
  assert cub.download(tmp_path / "new", url=server.url(), md5=MD5) == path
  assert path.read_bytes() == file_server.CONTENT
  assert len(server.requests) == 1


def test_a_damaged_archive_is_replaced(server, tmp_path):
  path = miniature.write(tmp_path / "CUB_200_2011.tgz", "damaged")
  cub.download(tmp_path, url=server.url(), md5=MD5)
  assert path.read_bytes() == file_server.CONTENT


def test_a_failed_download_says_what_to_do_without_a_network(server, tmp_path):
  with pytest.raises(InputError, match=r"cannot download .*404.*copy the archive there by hand"):
    cub.download(tmp_path, url=server.url("absent"), md5=MD5)
  assert not miniature.tree(tmp_path)
