"""The images an experiment is pointed at: test-set indices, files, a folder, or an array."""

import dataclasses
import logging
import pathlib
import re
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32, Int

from jprotop.data import batches, decode
from jprotop.data.arrays import read_array
from jprotop.data.dataset import Split
from jprotop.data.folder import image_files
from jprotop.data.parts import PARTS
from jprotop.errors import InputError
from jprotop.files import check_regular, user_path

_log = logging.getLogger("jprotop")


@dataclasses.dataclass(frozen=True)
class Images:
  """Images as the network takes them, and what is known about them.

  Attributes:
    image: in [0, 1].
    image_id: N names.
    label: -1 where the class is not known.
    points: part locations (x, y, visible) in pixels of the crop.
    unreadable: messages about files that were left out.
  """

  image: Float32[np.ndarray, "N S S 3"]
  image_id: list[str]
  label: Int[np.ndarray, " N"]
  points: Float32[np.ndarray, "N 15 3"]
  unreadable: list[str] = dataclasses.field(default_factory=list)

  def __len__(self) -> int:
    return len(self.image_id)


def from_split(split: Split, indices: Sequence[int] | Int[np.ndarray, " N"]) -> Images:
  """Images of a split by index, with labels and parts."""
  indices = np.asarray(indices, int)
  outside = indices[(indices < 0) | (indices >= len(split))]
  if outside.size:
    raise InputError(
      f"image index {outside[0]} is outside the {split.name} split; it has {len(split)} images, "
      f"0 to {len(split) - 1}"
    )
  return Images(
    image=batches.to_float(split.pixels[indices]),
    image_id=[split.image_id[i] for i in indices],
    label=split.label[indices],
    points=np.stack([split.part_points(i) for i in indices.tolist()]),
  )


def from_argument(argument: str, image_size: int, split: Callable[[], Split]) -> Images:
  """What `--images` names.

  Args:
    argument: comma-separated indices into the split, or comma-separated image files, or a folder,
      or a float32 .npy file [N, S, S, 3] in [0, 1]. What is named twice counts once.
    image_size: S, in pixels. Files are resized to it whole, which a warning says.
    split: gives the test set; only asked for indices, for a network may come without one.

  Raises:
    InputError: nothing usable is named. Single unreadable files among others are only noted.
  """
  items = [item.strip() for item in argument.split(",") if item.strip()]
  if items and all(re.fullmatch(r"-?[0-9]{1,9}", item) for item in items):
    return from_split(split(), np.array(list(dict.fromkeys(map(int, items)))))
  paths = [user_path(item) for item in items]
  if len(paths) == 1 and paths[0].suffix == ".npy":
    return _from_array(paths[0], image_size)
  return _from_files(_files_of(paths), image_size, argument)


def _files_of(paths: list[pathlib.Path]) -> list[pathlib.Path]:
  """The files, and those of the folders, each once; all of them can be read without end."""
  files = {}
  for path in paths:
    if path.is_dir():
      found = image_files(path)
    else:
      check_regular(path)
      found = [path]
    files |= {file.resolve(): file for file in found if file.resolve() not in files}
  return list(files.values())


def _from_array(path: pathlib.Path, size: int) -> Images:
  array = read_array(path)
  if array.ndim != 4 or array.shape[1:] != (size, size, 3) or not len(array):
    raise InputError(
      f"{path} has shape {array.shape}; this run takes [N, {size}, {size}, 3] with N >= 1"
    )
  if array.dtype != np.float32 or not (array.min() >= 0 and array.max() <= 1):
    raise InputError(
      f"{path} is {array.dtype} from {array.min()} to {array.max()}; it must be float32 in [0, 1]"
    )
  return _unlabelled(array, [f"{path.name}[{i}]" for i in range(len(array))], [])


def _from_files(files: list[pathlib.Path], size: int, argument: str) -> Images:
  images, names, unreadable = [], [], []
  for path in files:
    try:
      images.append(decode.resize(decode.decode(path, str(path)), size))
      names.append(path.name)
    except InputError as error:
      unreadable.append(str(error))
  if not images:
    reasons = "\n  ".join(unreadable[:10]) or "no image file there"
    raise InputError(f"--images={argument}: none of them can be used\n  {reasons}")
  _log.warning(
    "image files are used whole; if the network was trained on crops, as on CUB's boxes, crop them"
  )
  return _unlabelled(batches.to_float(np.stack(images)), names, unreadable)


def _unlabelled(
  image: Float32[np.ndarray, "N S S 3"], names: list[str], unreadable: list[str]
) -> Images:
  points = np.zeros((len(names), len(PARTS), 3), np.float32)
  return Images(image, names, np.full(len(names), -1), points, unreadable)
