"""What every command asks of a run: is its config sound, where are its images, how did it go."""

import contextlib
import dataclasses
import functools
import hashlib
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from jprotop import regions
from jprotop.data.alterations import Scheme, rule_of, scheme_of
from jprotop.data.batches import to_float
from jprotop.data.dataset import Dataset, load_dataset
from jprotop.errors import InputError
from jprotop.files import user_path, write_json
from jprotop.prototypes.protopnet import ProtoPNet, check_variables, make_model
from jprotop.prototypes.push import Provenance, Source
from jprotop.prototypes.see import Network
from jprotop.runs.checkpoints import Checkpoints, check_trained, read_config, read_latest
from jprotop.runs.config import trained_part
from jprotop.runs.config_checks import check_measuring
from jprotop.runs.config_files import check_extensions
from jprotop.runs.config_keys import apply_changes
from jprotop.torch_io import backbones

_log = logging.getLogger("jprotop")


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained network, and the images that it was trained on.

  Attributes:
    workdir: the run's folder.
    model, variables: the ProtoPNet and its arrays.
    info: as `jprotop.load` returns it.
    data: its data set; None where the network was imported without one.
  """

  workdir: pathlib.Path
  model: ProtoPNet
  variables: dict
  info: dict
  data: Dataset | None

  @property
  def dataset(self) -> Dataset:
    """Its data set, images as they are, whatever the network was trained on.

    Raises:
      InputError: the network was imported without one.
    """
    if self.data is None:
      raise InputError(
        f"{self.workdir} was imported without its images; import it again, into another --workdir, "
        "with --config.data.dir=DIR (and --config.train.data.name), or give image files with "
        "--images where a command takes them"
      )
    return self.data

  @property
  def config(self) -> dict:
    return self.info["config"]

  @property
  def network(self) -> Network:
    return Network(self.model, self.variables)

  @property
  def class_names(self) -> list[str]:
    return self.info["class_names"]

  @property
  def provenance(self) -> Provenance | None:
    """Where each prototype came from; None before the push, or where that is not known."""
    return self.info["provenance"]

  @property
  def image_size(self) -> int:
    """S of the images that the network sees, in pixels."""
    return self.config["train"]["data"]["image_size"]

  @property
  def imported(self) -> bool:
    """Whether the network was trained elsewhere."""
    return "imported" in self.info

  def source(self, prototype: int) -> Source | None:
    """The training patch that a prototype was pushed onto; None where that is not known."""
    if self.provenance is None:
      return None
    train, image = self.seen.train, int(self.provenance.image[prototype])
    return Source(
      image=to_float(train.pixels[image]),
      box=regions.Box(*self.provenance.box[prototype].tolist()),
      image_id=train.image_id[image],
      class_name=self.class_names[int(train.label[image])],
    )

  @functools.cached_property
  def digest(self) -> str:
    """Names the network's numbers and the images that it belongs to."""
    digest = hashlib.sha256(repr((self.model, self.info["data"], self.class_names)).encode())
    for name, array in sorted(flatten_dict(self.variables, sep="/").items()):
      digest.update(name.encode() + np.asarray(array).tobytes())
    return digest.hexdigest()[:16]

  @functools.cached_property
  def scheme(self) -> Scheme:
    """How images of this data set are altered where that is measured, by this run's config."""
    return scheme_in(self.config, "measure", len(self.class_names))

  @property
  def altered_class_names(self) -> list[str]:
    """Of the classes whose images `scheme` alters."""
    return [self.class_names[k] for k in self.scheme.altered_classes(len(self.class_names))]

  @property
  def trained_scheme(self) -> Scheme:
    """How images were altered for the networks of this run's training."""
    return scheme_in(self.config, "train", len(self.class_names))

  @functools.cached_property
  def seen(self) -> Dataset:
    """The data set as the network was trained and pushed on it: altered where it was."""
    return as_trained(self.config, self.dataset)


def load(
  workdir: str | pathlib.Path, changes: Mapping[str, Any] | None = None
) -> tuple[ProtoPNet, dict, dict]:
  """The network of a run; see `jprotop.load`. `changes` are {key: value} of its config."""
  path = user_path(workdir)
  config = apply_changes(read_config(path), changes or {})
  check_extensions(config)
  if changes:
    config = check_measuring(config)
  found = read_latest(path)
  if found is None:
    raise InputError(f"{path} holds no finished epoch yet; run jprotop train on it again")
  arrays, info = found
  check_trained(path, config, info)
  model = make_model(
    config["train"]["model"], len(info["class_names"]), info.get("prototype_class")
  )
  params = {group: value for group, value in arrays["params"].items() if group != "classifier"}
  variables = jax.tree.map(
    jax.numpy.asarray, {"params": params, "batch_stats": arrays["batch_stats"]}
  )
  check_variables(model, variables, config["train"]["data"]["image_size"])
  info = {key: value for key, value in info.items() if key != "trained"}
  provenance = Provenance.of_arrays(arrays.get("provenance"))
  return model, variables, {**info, "config": config, "provenance": provenance}


def open_run(
  workdir: str | pathlib.Path,
  dataset: Dataset | None = None,
  *,
  changes: Mapping[str, Any] | None = None,
) -> Run:
  """The run in a folder; `dataset`, if already open, is checked to be its own.

  Args:
    changes: {key: value} of what is measured in another way than its config says.
  """
  model, variables, info = load(workdir, changes)
  return Run(user_path(workdir), model, variables, info, dataset_of(info, dataset))


def check_new(place: pathlib.Path, flag: str) -> None:
  """InputError, before any work, unless a new run can be made in a folder."""
  if (place / "config.json").exists() or (place / "checkpoints").exists():
    raise InputError(f"{place} holds a run already; choose another --{flag}, or delete it")


def write_finished(
  place: pathlib.Path,
  config: dict,
  model: ProtoPNet,
  variables: dict,
  provenance: Provenance | None,
  info: dict,
) -> None:
  """Makes `place` a finished run of a network that was not trained there.

  Args:
    info: `class_names`, `data` (the data set's identity, or None) and `position`, and what else
      `load` is to return.
  """
  arrays = jax.tree.map(np.asarray, dict(variables))
  if provenance is not None:
    arrays["provenance"] = provenance.as_arrays()
  labels, step = list(model.prototype_class), info["position"]["epochs_done"]
  kept = {"finished": True, "prototype_class": labels, "trained": trained_part(config)}
  with contextlib.closing(Checkpoints(place)) as store:
    store.save(step, model=arrays, optimizer={"present": np.array(False)}, info={**info, **kept})
  # Last, so that there is a run only where all of it is there.
  write_json(place / "config.json", config)


def is_finished(workdir: pathlib.Path) -> bool:
  """Whether a folder holds a run that was trained to its end."""
  try:
    return (workdir / "config.json").exists() and load(workdir)[2]["finished"]
  except InputError:
    return False


def as_trained(config: dict, dataset: Dataset) -> Dataset:
  """The data set as a network of this config sees it: altered or not."""
  if config["train"]["network"] != "altered":
    return dataset
  return dataset.altered(scheme_in(config, "train", len(dataset.class_names)))


def scheme_in(config: dict, part: str, num_classes: int) -> Scheme:
  """Which images are altered, and how, as the part "train" or "measure" of a config says."""
  train = config["train"]
  twins = train["data"]["twins"]
  return scheme_of(config[part]["alteration"], train["protocol"], num_classes, twins=twins)


def rule_in(config: Mapping[str, Any]) -> str:
  """How the training of a config chooses the altered classes: see `rule_of`."""
  train = config["train"]
  return rule_of(train["alteration"], train["protocol"], twins=train["data"]["twins"])


def open_dataset(config: dict) -> Dataset:
  """The data set of a config."""
  data, place = config["train"]["data"], config["data"]
  return load_dataset(
    data["name"],
    directory=place["dir"],
    image_size=data["image_size"],
    validation_share=data["validation_share"],
    seed=config["train"]["seed"],
    cache=place["cache"],
    toy=data["toy"],
    twins=data["twins"],
  )


def backbone_file(config: dict) -> pathlib.Path | None:
  """The file that a config's backbone starts from, downloaded if need be; None: random weights."""
  start, cache = config["train"]["init"]["backbone"], config["data"]["cache"]
  if not start:
    return None
  cache = user_path(cache) if cache else None
  return backbones.locate(start, config["train"]["model"]["backbone"], cache)


def dataset_of(info: dict, dataset: Dataset | None = None) -> Dataset | None:
  """The data set that a run (the `info` of `jprotop.load`) was trained on; None: not known.

  Raises:
    InputError: what is there now has other images, labels, boxes or splits.
  """
  if info["data"] is None:
    return None
  size = info["config"]["train"]["data"]["image_size"]
  try:
    dataset = dataset.at_size(size) if dataset else open_dataset(info["config"])
  except InputError as error:
    raise InputError(
      f"the images of this run: {error}\nIf they were moved, give the command that trained it "
      "again, with their new folder; an imported network is imported again"
    ) from error
  if dataset.identity != info["data"]:
    place = info["config"]["data"]["dir"] or info["config"]["train"]["data"]["name"]
    raise InputError(
      f"{place} does not hold the images that this run was trained on, with the same boxes and the "
      "same split into training and validation; bring them back, or train in another --workdir"
    )
  if not info["finished"]:
    _log.warning("this run has not finished its training; the numbers are those of its last epoch")
  return dataset
