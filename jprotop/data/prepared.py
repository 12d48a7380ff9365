"""Data sets in the cache: prepared once, by one program at a time, and checked before use.

CACHE/NAME/FINGERPRINT/VERSION holds what TFDS writes, each split's annotations as
annotations-SPLIT.npz, and, written last, a list of the files. A folder that does not fit its list
is prepared anew. The pictures, which are read only where pixel files are made, are checked by their
size at first, and by their hash before the first is read.
"""

import functools
import logging
import pathlib
import shutil
import threading
from collections.abc import Sequence

import numpy as np

from jprotop.data import builders, listed
from jprotop.data.sources import Source
from jprotop.errors import InputError
from jprotop.files import atomic_path, make_once

_log = logging.getLogger("jprotop")

_PICTURES = ".array_record"  # in the names of the files that hold them


class Prepared:
  """A data set in the cache, which is prepared there unless it is.

  Raises:
    InputError: the source's, or the cache cannot be written.
  """

  def __init__(self, name: str, source: Source, fingerprint: str, cache: pathlib.Path):
    self.name, self.cache = name, cache
    self.folder = cache / name / fingerprint / str(builders.ImageSet.VERSION)
    self._builder = functools.partial(builders.builder_of, name, source, fingerprint, cache)
    self._opened: dict[str, Sequence] = {}
    self._lock = threading.Lock()
    self._ensure()

  def annotations(self, split: str) -> dict[str, np.ndarray]:
    """All but the pictures of "train" or "test": label, image_id, box and parts, [N, ...] each."""
    with np.load(self.folder / f"annotations-{split}.npz", allow_pickle=False) as file:
      return dict(file)

  def record(self, split: str, row: int) -> dict:
    """The encoded example in a row of "train" or "test"; called from several threads."""
    try:
      with self._lock:
        if not self._opened:
          self._ensure(pictures=True)
          self._opened = builders.open_splits(self._builder())
      return self._opened[split][row]
    except InputError:
      raise
    except Exception as error:  # array_record has several kinds for one: the disk gave other bytes.
      raise InputError(
        f"the pictures in {self.folder} cannot be read ({error}); delete that folder, and it is "
        "prepared anew"
      ) from error

  def _ensure(self, *, pictures: bool = False) -> None:
    """Prepares the folder unless its files are those of its list; pictures by their hash too."""

    def hashed(name: str) -> bool:
      return pictures or _PICTURES not in name

    try:
      make_once(self.folder, lambda: listed.fault(self.folder, hashed=hashed), self._prepare)
    except (OSError, RuntimeError) as error:  # array_record's writer has only the latter.
      reason = getattr(error, "strerror", None) or error
      raise InputError(
        f"cannot prepare {self.name} in {self.cache}: {reason}; free some space, or choose another "
        "place with --config.data.cache"
      ) from error

  def _prepare(self) -> None:
    for left in self.folder.parent.glob("incomplete.*"):  # by a program that was killed
      shutil.rmtree(left)
    _log.info("preparing %s (once) in %s", self.name, self.cache)
    try:
      builder = self._builder()
      builders.write(builder)
      for split, examples in builders.open_splits(builder).items():
        _write_annotations(self.folder / f"annotations-{split}.npz", examples)
      listed.write_list(self.folder)
    except BaseException:
      shutil.rmtree(self.folder, ignore_errors=True)
      raise


class Records:
  """Random access to the encoded examples of one split."""

  def __init__(self, prepared: Prepared, split: str, count: int):
    self._prepared, self._split, self._count = prepared, split, count

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, row: int) -> dict:
    if not 0 <= row < self._count:
      raise IndexError(f"row {row} of {self._count}")
    return self._prepared.record(self._split, row)


def _write_annotations(path: pathlib.Path, examples: Sequence) -> None:
  rows = [{k: v for k, v in row.items() if k != "image"} for row in examples]
  columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
  columns["image_id"] = np.array([row["image_id"].decode() for row in rows])
  with atomic_path(path) as temporary:
    np.savez(temporary, allow_pickle=False, **columns)
