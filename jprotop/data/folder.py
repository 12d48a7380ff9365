"""A user's own images: train/CLASS/*.jpg and test/CLASS/*.jpg, with or without boxes.

The folders may also be called train_cropped/ and test_cropped/, as ProtoPNet has them.

Boxes, where there are any, stand in DIR/boxes.txt, one line an image: `train/CLASS/NAME.jpg x y w
h`, in pixels, as CUB gives them. An image without a box is used whole.
"""

import hashlib
import logging
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jprotop.data.parts import PARTS
from jprotop.data.sources import Source, register_source
from jprotop.errors import InputError
from jprotop.files import user_path

_log = logging.getLogger("jprotop")

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")


def image_files(directory: pathlib.Path) -> list[pathlib.Path]:
  """The image files of a directory, sorted by name; files with a leading dot are passed over."""
  return sorted(
    path
    for path in directory.iterdir()
    if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
  )


class ImageFolder:
  """Files, labels and boxes of a folder; classes are the sorted folder names below train/."""

  def __init__(self, path: str):
    self.root = user_path(path)
    if not path or not self.root.is_dir():
      raise InputError(
        f"data.dir={path!r} is not a folder; give one that holds train/CLASS/*.jpg and "
        "test/CLASS/*.jpg with --config.data.dir"
      )
    self.folders = {split: self._folder(split) for split in ("train", "test")}
    names = {split: self._class_names(split) for split in ("train", "test")}
    unknown = sorted(names["test"] - names["train"])
    if unknown:
      raise InputError(f"{self.root}/test has classes that train/ lacks: {', '.join(unknown)}")
    self.class_names = sorted(names["train"])
    if len(self.class_names) < 2:
      raise InputError(f"{self.root}/train has {len(self.class_names)} classes; at least 2 needed")
    self.files = {split: self._files(split) for split in ("train", "test")}
    self.boxes = self._read_boxes()
    self._warn_of_gaps()

  def _warn_of_gaps(self) -> None:
    tested = {label for _, label in self.files["test"]}
    if untested := [n for label, n in enumerate(self.class_names) if label not in tested]:
      _log.warning("%s has no image of %s", self.folders["test"], ", ".join(untested))
    count = sum(len(files) for files in self.files.values())
    if self.boxes and len(self.boxes) < count:
      missing = count - len(self.boxes)
      _log.warning(
        "%d of %d images in %s have no box; they are used whole", missing, count, self.root
      )

  def _folder(self, split: str) -> pathlib.Path:
    for name in (split, f"{split}_cropped"):
      if (self.root / name).is_dir():
        return self.root / name
    raise InputError(f"{self.root} has no folder {split}/; it must hold train/ and test/")

  def _class_names(self, split: str) -> set[str]:
    return {p.name for p in self.folders[split].iterdir() if p.is_dir() and p.name[0] != "."}

  def _files(self, split: str) -> list[tuple[pathlib.Path, int]]:
    files = []
    for label, name in enumerate(self.class_names):
      directory = self.folders[split] / name
      found = image_files(directory) if directory.is_dir() else []
      if split == "train" and not found:
        raise InputError(
          f"class {name!r} has no training image in {directory}; add some "
          f"({', '.join(SUFFIXES)}) or remove the folder"
        )
      files += [(path, label) for path in found]
    return files

  def _read_boxes(self) -> dict[str, tuple[float, float, float, float]]:
    path = self.root / "boxes.txt"
    text = path.read_text(encoding="utf-8-sig") if path.exists() else ""  # Editors may add a mark.
    known = {self._image_id(file) for files in self.files.values() for file, _ in files}
    boxes = {}
    for number, line in enumerate(text.splitlines(), 1):
      if not line.strip():
        continue
      name, *numbers = line.rsplit(maxsplit=4)
      try:
        x, y, w, h = (float(value) for value in numbers)
      except ValueError as error:
        raise InputError(f"{path}, line {number}: {line!r} is not `PATH x y w h`") from error
      if name not in known:
        raise InputError(f"{path}, line {number}: there is no image {name!r} in {self.root}")
      boxes[name] = (x, y, w, h)
    return boxes

  def _image_id(self, path: pathlib.Path) -> str:
    return path.relative_to(self.root).as_posix()

  def fingerprint(self) -> str:
    """Of every file's name, size and time of change, and of the boxes."""
    digest = hashlib.sha256(repr((sorted(self.boxes.items()), self.class_names)).encode())
    for split, files in self.files.items():
      for path, label in files:
        stat = path.stat()
        digest.update(f"{split} {path} {label} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]

  def examples(self, split: str) -> Iterator[dict]:
    """Examples of "train" or "test" for `builders.ImageSet`."""
    for path, label in self.files[split]:
      image_id = self._image_id(path)
      yield {
        "image": path.read_bytes(),
        "image_id": image_id,
        "label": label,
        "box": self.boxes.get(image_id),
        "parts": np.zeros((len(PARTS), 3), np.float32),
      }


def open_source(directory: str, _: Mapping[str, Any], __: pathlib.Path) -> Source:
  """A user's own images."""
  files = ImageFolder(directory)
  return Source(
    class_names=files.class_names,
    counts={split: len(found) for split, found in files.files.items()},
    fingerprint=files.fingerprint(),
    examples=files.examples,
  )


register_source("folder", open_source)
