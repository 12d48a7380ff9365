"""A network trained with PyTorch as a run of jprotop: its images and its prototypes' sources."""

import collections
import dataclasses
import pathlib

import numpy as np
from jaxtyping import Shaped
from tqdm import tqdm

from jprotop import parallel
from jprotop.data import batches
from jprotop.data.arrays import read_array
from jprotop.data.dataset import Dataset, Split
from jprotop.errors import InputError
from jprotop.files import sha256_of
from jprotop.prototypes import explain, push
from jprotop.prototypes.protopnet import ProtoPNet
from jprotop.prototypes.see import Network
from jprotop.runs import run as runs
from jprotop.runs.checkpoints import Position
from jprotop.runs.config_checks import check_config
from jprotop.torch_io import identify, names, torch_files
from jprotop.training import phases

_SIZE_NOT_TOLD = "not told by the file; --config.train.data.image_size sets it"


def import_checkpoint(
  path: pathlib.Path,
  workdir: pathlib.Path,
  config: dict,
  *,
  boxes: pathlib.Path | None = None,
  prototype_class: Shaped[np.ndarray, "..."] | None = None,
  similarity: str | None = None,
) -> dict:
  """Makes a workdir the run of a ProtoPNet checkpoint.

  Args:
    path: the checkpoint; see `torch_files.read`.
    config: plain values of a config file. Its model section is replaced by what the file says; the
      data that it names, if any, become the run's, without a validation split.
    boxes: the reference's `bb*.npy`, which says where the prototypes were pushed from. None: that
      is searched for, as the push does, where there are data.
    prototype_class, similarity: see `identify.identify`.

  Returns:
    The run's `info["imported"]`: what was read, and how certain it is.

  Raises:
    InputError: the file, the network or the data do not fit each other; nothing is written.
  """
  runs.check_new(workdir, "workdir")
  file = torch_files.read(path)
  try:
    found = identify.identify(file, prototype_class=prototype_class, similarity=similarity)
    variables = names.variables_from_state_dict(found.model, file.state)
  except InputError as error:
    raise InputError(f"{path}: {error}") from error
  image_size = _image_size(file)
  config = check_config(_config_of(config, found.model, image_size))
  dataset = _dataset(config, found.model.num_classes)
  provenance, sources = _provenance(found.model, variables, dataset, config, boxes)
  imported = _imported(path, file, found, image_size, sources)
  info = {**_info(config, dataset, found.model.num_classes), "imported": imported}
  runs.write_finished(workdir, config, found.model, variables, provenance, info)
  return imported


def _info(config: dict, dataset: Dataset | None, num_classes: int) -> dict:
  """What every finished run says of itself."""
  return {
    "position": _at_the_end(config),
    "class_names": dataset.class_names if dataset else _numbered(num_classes),
    "data": dataset.identity if dataset else None,
  }


def _image_size(file: torch_files.TorchFile) -> int | None:
  """S of the network's images in pixels, where the file tells it."""
  size = file.attributes.get("img_size")
  return size if isinstance(size, int) else None


def _imported(
  path: pathlib.Path,
  file: torch_files.TorchFile,
  found: identify.Identified,
  image_size: int | None,
  sources: str,
) -> dict:
  """What was read, and how certain it is."""
  return {
    "file": path.name,
    "sha256": sha256_of(path),
    "form": file.form,
    "classes_from": found.classes_from,
    "similarity_from": found.similarity_from,
    "image_size_from": _SIZE_NOT_TOLD if image_size is None else "the file",
    "sources": sources,
  }


def _at_the_end(config: dict) -> dict:
  """Where a run stands that has nothing left to train."""
  plan = phases.phases_of(config)
  end = Position(phase=len(plan), epochs_done=sum(phase.epochs for phase in plan))
  return dataclasses.asdict(end)


def _config_of(config: dict, model: ProtoPNet, image_size: int | None) -> dict:
  """The config with what the file says of the network, and of its images' size if it does."""
  data = {**config["train"]["data"], "validation_share": 0.0}
  if image_size is not None:
    data["image_size"] = image_size
  per_class = max(collections.Counter(model.prototype_class).values())
  fields = ("backbone", "addon", "prototype_depth", "similarity", "distance")
  found = {field: getattr(model, field) for field in fields}
  train = config["train"]
  changes = {
    "data": data,
    "model": {**train["model"], **found, "prototypes_per_class": per_class},
    "init": {**train["init"], "backbone": ""},
    "frozen": {"parts": 0, "batch_norm": False},
  }
  return {**config, "train": {**train, **changes}}


def _numbered(num_classes: int) -> list[str]:
  return [f"class {number}" for number in range(num_classes)]


def _dataset(config: dict, num_classes: int) -> Dataset | None:
  """The data that a config names; None: it names none."""
  if config["train"]["data"]["name"] != "toybirds" and not config["data"]["dir"]:
    return None
  dataset = runs.open_dataset(config)
  if len(dataset.class_names) != num_classes:
    raise InputError(
      f"the network has {num_classes} classes, but the data have {len(dataset.class_names)}; give "
      "the data that it was trained on, or none"
    )
  return dataset


def _provenance(
  model: ProtoPNet,
  variables: dict,
  dataset: Dataset | None,
  config: dict,
  boxes: pathlib.Path | None,
) -> tuple[push.Provenance | None, str]:
  """Where the prototypes come from, and how that is known."""
  if dataset is None:
    if boxes is not None:
      raise InputError(
        f"{boxes} numbers training images, which are not there; give them with --config.data.dir"
      )
    return None, "not known: no data were given"
  split, size = runs.as_trained(config, dataset).train, config["compute"]["push_batch_size"]
  if boxes is not None:
    found = _from_boxes(boxes, model, variables, split, size)
    return found, f"{boxes.name}; {_near(found)} lie on the patches that it names"
  rows = parallel.round_up(size)
  crops = batches.in_order(split, rows)
  look = {"total": -(-len(split) // rows), "desc": "sources of prototypes", "unit": "batch"}
  _, found = push.find_sources(
    model,
    variables,
    tqdm(crops, dynamic_ncols=True, **look),
    image_size=split.image_size,
    batch_size=rows,
  )
  near = "the nearest training patches of their classes"
  return found, f"{near}; {_near(found)} lie on them"


# Squared distance within which a prototype counts as that patch: decoding and resizing elsewhere
# move a patch a little, and the reference's batch statistics drift after the push.
_PUSHED = 0.01


def _near(found: push.Provenance) -> str:
  return f"{(found.sq_dist < _PUSHED).sum()} of {len(found.sq_dist)}"


def _from_boxes(
  path: pathlib.Path, model: ProtoPNet, variables: dict, split: Split, batch_size: int
) -> push.Provenance:
  """A reference run's bb*.npy: rows of image index, y0, y1, x0, x1 and, in most, the label."""
  count, size = len(model.prototype_class), split.image_size
  rows = read_array(path)
  if rows.ndim != 2 or len(rows) != count or rows.shape[1] not in (5, 6):
    raise InputError(f"{path} has shape {rows.shape}; it must be [{count}, 6], a row a prototype")
  if rows.dtype.kind not in "iuf" or not (np.isfinite(rows).all() and (rows == rows.round()).all()):
    raise InputError(f"{path} holds what are no whole numbers")
  rows = rows.astype(np.int64)
  image, box = rows[:, 0], rows[:, 1:5]
  if image.min() < 0 or image.max() >= len(split):
    raise InputError(
      f"{path} names training images {image.min()} to {image.max()}, but there are {len(split)}; "
      "give the images that the network was trained on"
    )
  y0, y1, x0, x1 = box.T
  if box.min() < 0 or box.max() > size or (y0 >= y1).any() or (x0 >= x1).any():
    raise InputError(f"{path} has boxes that lie outside of {size} x {size} pixels")
  labels = np.column_stack([split.label[image], *rows[:, 5:].T])
  wrong = np.flatnonzero((labels != np.array(model.prototype_class)[:, None]).any(axis=1))
  if wrong.size:
    raise InputError(
      f"{path}: the sources of {len(wrong)} prototypes, the first is {wrong[0]}, are not of their "
      "class; the images, their order or the prototypes' classes are others than in that training"
    )
  every, chosen = np.arange(count), np.unique(image)
  near = explain.nearest_cells(
    Network(model, variables), split, every, batch_size=batch_size, indices=chosen
  )
  place = np.searchsorted(chosen, image)
  return push.Provenance(
    image=image.astype(np.int32),
    cell=near["cell"][place, every].astype(np.int32),
    box=box.astype(np.int32),
    sq_dist=near["sq_dist"][place, every],
  )
