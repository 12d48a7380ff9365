"""CUB-200-2011 (Wah et al. 2011) from its official folder or archive."""

import gzip
import hashlib
import logging
import lzma
import os
import pathlib
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jprotop.data import listed
from jprotop.data.parts import PARTS
from jprotop.data.sources import Source, register_source
from jprotop.download import Hash, fetch
from jprotop.errors import InputError
from jprotop.files import atomic_path, make_once, user_path

_log = logging.getLogger("jprotop")

URL = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"
MD5 = "97eceeb196236b17998738112f37df78"
_FILES = (
  "images.txt",
  "classes.txt",
  "image_class_labels.txt",
  "train_test_split.txt",
  "bounding_boxes.txt",
  "parts/parts.txt",
  "parts/part_locs.txt",
)
_BROKEN_ARCHIVE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


def locate(path: str, cache: pathlib.Path) -> pathlib.Path:
  """The CUB_200_2011 folder at `path`: itself, its parent, or the .tgz, unpacked into the cache.

  Raises:
    InputError: there is none, or it is incomplete.
  """
  root = user_path(path)
  if not path or not root.exists():
    raise InputError(
      f"data.dir={path!r} does not exist; give the CUB_200_2011 folder or its .tgz with "
      "--config.data.dir, or fetch it with jprotop download-cub --dir=DIR"
    )
  if root.is_file():
    root = _unpack(root, cache)
  if not (root / "images.txt").exists() and (root / "CUB_200_2011").is_dir():
    root = root / "CUB_200_2011"
  missing = [name for name in (*_FILES, "images") if not (root / name).exists()]
  if missing:
    raise InputError(
      f"{root} is not a complete CUB_200_2011 folder: {', '.join(missing)} missing; unpack the "
      "official archive again, or, for images of your own, add --config.train.data.name=folder"
    )
  return root


def _unpack(archive: pathlib.Path, cache: pathlib.Path) -> pathlib.Path:
  """Unpacks an archive once; a folder appears under its final name only when it is complete."""
  stat = archive.stat()
  name = f"{archive.resolve()}-{stat.st_size}-{stat.st_mtime_ns}"
  target = cache / "unpacked" / hashlib.sha256(name.encode()).hexdigest()[:16]

  def unpack() -> None:
    _log.info("unpacking %s (once) in %s", archive, cache)
    with atomic_path(target) as temporary:
      _extract(archive, temporary)
      listed.write_list(temporary)

  # Pictures by their size: they are decoded when the data set is prepared, and hashed from then on.
  make_once(target, lambda: listed.fault(target, hashed=lambda name: name.endswith(".txt")), unpack)
  return target


def _extract(archive: pathlib.Path, folder: pathlib.Path) -> None:
  folder.mkdir()
  try:
    with tarfile.open(archive) as tar:
      # Python before 3.11.4 has no filters: there our own check stands alone.
      tar.extraction_filter = getattr(tarfile, "data_filter", None)
      for member in tar:
        _check_member(member)
        tar.extract(member, folder)
      # To tar a damaged header looks like the end; the checksum stands behind the true one.
      while tar.fileobj.read(1 << 20):
        pass
  except _BROKEN_ARCHIVE as error:
    raise InputError(f"{archive} cannot be unpacked ({error}); download it again") from error


def _check_member(member: tarfile.TarInfo) -> None:
  """Refuses what is no plain file or folder, or would land outside the target."""
  path = pathlib.PurePosixPath(member.name)
  if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
    raise tarfile.TarError(f"member {member.name!r} is a link, or would be written elsewhere")


def download(directory: pathlib.Path, *, url: str = URL, md5: str = MD5) -> pathlib.Path:
  """Downloads the official archive into a directory, unless it is there, and checks its MD5 hash.

  Raises:
    InputError: no network, no space, or another hash; see `jprotop.download.fetch`.
  """
  return fetch(
    url,
    directory / "CUB_200_2011.tgz",
    check=Hash("md5", md5),
    remedy=(
      "on a machine without a network copy the archive there by hand and give it with "
      "--config.data.dir"
    ),
  )


def _table(path: pathlib.Path, columns: int, kind: Callable = str) -> dict[int, list]:
  """Rows `key value...` of one of CUB's text files, by their integer key; values of one kind."""
  rows = {}
  for number, line in enumerate(path.read_text().splitlines(), 1):
    fields = line.split(maxsplit=columns)
    if not fields:
      continue
    try:
      key, values = int(fields[0]), [kind(value) for value in fields[1:]]
    except ValueError:
      key, values = -1, []
    if len(values) != columns:
      raise InputError(
        f"{path}, line {number}: {line!r} is not a number and {columns} values after it"
      )
    rows[key] = values
  return rows


class Annotations:
  """What CUB's text files say, images sorted by path as the reference sorts them.

  Attributes:
    root: the folder.
    class_names: C names, label = class id - 1.
    image_ids: N paths below images/, sorted by class folder, then file name.
    label: int [N]; is_train: bool [N]; box: float32 [N, 4] (x, y, w, h).
    parts: float32 [N, 15, 3] (x, y, visible) in pixels.
  """

  def __init__(self, root: pathlib.Path):
    self.root = root
    paths = {key: row[0] for key, row in _table(root / "images.txt", 1).items()}
    classes = _table(root / "classes.txt", 1)
    labels = _table(root / "image_class_labels.txt", 1, int)
    split = _table(root / "train_test_split.txt", 1, int)
    boxes = _table(root / "bounding_boxes.txt", 4, float)
    if not paths:
      raise InputError(f"{root}/images.txt names no image; unpack the official archive again")
    parts = self._read_parts(root / "parts/part_locs.txt", set(paths))
    for name, table in (("label", labels), ("split", split), ("box", boxes)):
      missing = paths.keys() - table.keys()
      if missing:
        raise InputError(
          f"{root}: {len(missing)} images have no {name}, the first is "
          f"{paths[min(missing)]}; the text files do not belong together"
        )
    # The reference sorts class folders, then file names, by their spelling.
    keys = sorted(paths, key=lambda key: tuple(os.path.split(paths[key])))
    self.class_names = [classes[key][0] for key in sorted(classes)]
    self.image_ids = [paths[key] for key in keys]
    self.label = np.array([labels[key][0] - 1 for key in keys])
    self.is_train = np.array([split[key][0] == 1 for key in keys])
    self.box = np.array([boxes[key] for key in keys], np.float32)
    self.parts = np.stack([parts[key] for key in keys])
    if self.label.min() < 0 or self.label.max() >= len(self.class_names):
      raise InputError(f"{root}: image_class_labels.txt names a class that classes.txt lacks")

  @staticmethod
  def _read_parts(path: pathlib.Path, images: set[int]) -> dict[int, np.ndarray]:
    parts = {key: np.zeros((len(PARTS), 3), np.float32) for key in images}
    for number, line in enumerate(path.read_text().splitlines(), 1):
      try:
        image, part, x, y, visible = line.split()
        if int(image) in parts and int(visible):
          parts[int(image)][int(part) - 1] = float(x), float(y), 1.0
      except (ValueError, IndexError) as error:
        raise InputError(f"{path}, line {number}: {line!r} is not a part location") from error
    return parts

  def fingerprint(self) -> str:
    """Of the annotations and of every image file's size and time of change."""
    digest = hashlib.sha256()
    for name in _FILES:
      digest.update((self.root / name).read_bytes())
    missing = []
    for image_id in self.image_ids:
      path = self.root / "images" / image_id
      try:
        stat = path.stat()
        digest.update(f"{image_id} {stat.st_size} {stat.st_mtime_ns}\n".encode())
      except OSError:
        missing.append(image_id)
    if missing:
      raise InputError(
        f"{self.root}/images lacks {len(missing)} of {len(self.image_ids)} images, the first is "
        f"{missing[0]}; unpack the official archive again"
      )
    return digest.hexdigest()[:16]

  def examples(self, split: str) -> Iterator[dict]:
    """Examples of "train" or "test" for `builders.ImageSet`."""
    for i in np.flatnonzero(self.is_train == (split == "train")):
      yield {
        "image": (self.root / "images" / self.image_ids[i]).read_bytes(),
        "image_id": self.image_ids[i],
        "label": int(self.label[i]),
        "box": self.box[i],
        "parts": self.parts[i],
      }


def open_source(directory: str, _: Mapping[str, Any], cache: pathlib.Path) -> Source:
  """CUB-200-2011, or any data set in its layout, from its folder or archive."""
  annotations = Annotations(locate(directory, cache))
  train = int(annotations.is_train.sum())
  return Source(
    class_names=annotations.class_names,
    counts={"train": train, "test": len(annotations.is_train) - train},
    fingerprint=annotations.fingerprint(),
    examples=annotations.examples,
  )


register_source("cub", open_source)
