"""Pixel files: images that are seen unchanged many times, decoded, cropped and resized once.

A pixel file is a memory-mapped uint8 array [N, S, S, 3], named by a fingerprint of everything that
shaped it: the data set, the size, the rule applied, and the code that applied it. So a stale one
is never found, and it is renamed into place only when whole, so a half-written one is not either.
"""

import hashlib
import inspect
import os
import pathlib
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL
from PIL import features
from tqdm import tqdm

from jprotop.data import augment, decode
from jprotop.errors import InputError
from jprotop.files import atomic_path, remove_orphans

_CODE = "".join(inspect.getsource(module) for module in (augment, decode))
# To "jpg", libjpeg-turbo only says which interface it imitates.
_DECODERS = (PIL.__version__, features.version("jpg"), features.version("libjpeg_turbo"))


def fingerprint(*what) -> str:
  """A name for everything given, and for the code that makes pixels, Pillow's included."""
  return hashlib.sha256(f"{_CODE}{_DECODERS}{what!r}".encode()).hexdigest()[:16]


def _check_space(path: pathlib.Path, needed: int) -> None:
  """A memory map on a disk that runs full kills the process, so the space is asked for first."""
  place = next(parent for parent in path.absolute().parents if parent.exists())
  free = shutil.disk_usage(place).free
  if free < needed:
    raise InputError(
      f"{path} needs {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free there; free some "
      "space, choose another place with --config.data.cache, or lower --config.train.data.copies"
    )


def pixel_file(
  cache: pathlib.Path, name: str, count: int, size: int, render: Callable[[int], np.ndarray]
) -> np.ndarray:
  """The pixel file of that name, made first if it is not there yet.

  Args:
    cache: folder of pixel files.
    name: what is shown as progress, a dash, and the fingerprint.
    count, size: N and S.
    render: index to uint8 [S, S, 3]; called from several threads.

  Returns:
    Memory-mapped uint8 [N, S, S, 3], read-only.
  """
  path = cache / "pixels" / f"{name}.npy"
  if not path.exists():
    remove_orphans(path)
    _check_space(path, count * size * size * 3)
    with atomic_path(path) as temporary:
      pixels = np.lib.format.open_memmap(
        temporary, mode="w+", dtype=np.uint8, shape=(count, size, size, 3)
      )

      def store(i: int) -> None:
        pixels[i] = render(i)

      with ThreadPoolExecutor(os.cpu_count()) as pool:
        label = f"preparing {name.rpartition('-')[0]} images"
        for _ in tqdm(pool.map(store, range(count)), label, count, unit="image", leave=False):
          os.utime(temporary)  # For remove_orphans: what is stored in a map need not show there.
      pixels.flush()
      del pixels
  return np.load(path, mmap_mode="r")
