"""Pixel files: images that are seen unchanged many times, decoded, cropped and resized once.

A pixel file is a memory-mapped row of (image, uint8 [S, S, 3]; its CRC-32), N of them, named by a
fingerprint of everything that shaped it: the data set, the size, the rule applied, and the code
that applied it. So a stale one is never found, and it is renamed into place only when whole, so a
half-written one is not either. Every image is held against its checksum when a file is opened,
once a process, which takes about a second a gigabyte; a file that does not fit is made anew.
"""

import hashlib
import inspect
import os
import pathlib
import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import FileIO

import numpy as np
import PIL
from jaxtyping import UInt8
from PIL import features
from tqdm import tqdm

from jprotop.data import augment, decode
from jprotop.errors import InputError
from jprotop.files import atomic_path, make_once

_CODE = "".join(inspect.getsource(module) for module in (augment, decode))
# To "jpg", libjpeg-turbo only says which interface it imitates.
_DECODERS = (PIL.__version__, features.version("jpg"), features.version("libjpeg_turbo"))


def fingerprint(*what) -> str:
  """A name for everything given, and for the code that makes pixels, Pillow's included."""
  return hashlib.sha256(f"{_CODE}{_DECODERS}{what!r}".encode()).hexdigest()[:16]


def _check_space(path: pathlib.Path, needed: int) -> None:
  """Says before the work that there is too little space for it."""
  place = next(parent for parent in path.absolute().parents if parent.exists())
  free = shutil.disk_usage(place).free
  if free < needed:
    raise InputError(
      f"{path} needs {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free there; free some "
      "space, choose another place with --config.data.cache, or lower --config.train.data.copies"
    )


def pixel_file(
  cache: pathlib.Path,
  name: str,
  count: int,
  size: int,
  render: Callable[[int], UInt8[np.ndarray, "S S 3"]],
) -> UInt8[np.ndarray, "{count} {size} {size} 3"]:
  """The pixel file of that name, made first if it is not there yet, or damaged.

  Args:
    cache: folder of pixel files.
    name: what is shown as progress, a dash, and the fingerprint.
    count, size: N and S.
    render: an index to its image; called from several threads.

  Returns:
    Memory-mapped, read-only.
  """
  path = cache / "pixels" / f"{name}.npy"
  make_once(path, lambda: _fault(path, count, size), lambda: _make(path, count, size, render))
  return np.load(path, mmap_mode="r", allow_pickle=False)["image"]


def _form(size: int) -> np.dtype:
  return np.dtype([("image", np.uint8, (size, size, 3)), ("crc32", np.uint32)])


def _fault(path: pathlib.Path, count: int, size: int) -> str:
  """Why a pixel file is not what was written, in words that follow its name; "" where it is."""
  if not path.exists():
    return "is not there"
  try:
    rows = np.load(path, mmap_mode="r", allow_pickle=False)
    fits = rows.dtype == _form(size) and rows.shape == (count,)
  except Exception as error:  # NumPy raises half a dozen kinds for a damaged header.
    return f"cannot be read ({error})"
  sound = fits and _is_sound(path, rows)
  return "" if sound else "is damaged, or of another version of jprotop"


# Files that were checked in this process, as they were then.
_sound: set[tuple] = set()


def _is_sound(path: pathlib.Path, rows: np.ndarray) -> bool:
  """Whether every image of a pixel file has its checksum."""
  facts = path.stat()
  name = (path.absolute(), facts.st_ino, facts.st_size, facts.st_mtime_ns)
  if name not in _sound:
    blocks = (rows[start : start + 64] for start in range(0, len(rows), 64))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
      if not all(pool.map(_fit, blocks)):
        return False
    _sound.add(name)
  return True


def _fit(rows: np.ndarray) -> bool:
  return all(zlib.crc32(row["image"].data) == row["crc32"] for row in rows)


def _make(path: pathlib.Path, count: int, size: int, render: Callable[[int], np.ndarray]) -> None:
  """Writes a pixel file."""
  form = _form(size)
  _check_space(path, count * form.itemsize)
  with atomic_path(path) as temporary, open(temporary, "wb", buffering=0) as file:
    header = {"descr": np.lib.format.dtype_to_descr(form), "fortran_order": False}
    np.lib.format.write_array_header_2_0(file, {**header, "shape": (count,)})
    start = file.tell()

    def store(i: int) -> None:
      row = np.zeros((), form)
      row["image"] = render(i)
      row["crc32"] = zlib.crc32(row["image"].data)
      _write_at(file, row.tobytes(), start + i * form.itemsize)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
      label = f"preparing {path.stem.rpartition('-')[0]} images"
      for _ in tqdm(pool.map(store, range(count)), label, count, unit="image", leave=False):
        pass


def _write_at(file: FileIO, content: bytes, place: int) -> None:
  """Writes into a file: where the disk is full this is an error, and in a memory map a kill."""
  while content:
    written = os.pwrite(file.fileno(), content, place)
    content, place = content[written:], place + written
