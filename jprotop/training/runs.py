"""What every command asks of a run: is its config sound, where are its images, how did it go."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import pathlib

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from jprotop import parallel, regions
from jprotop.attacks.pgd import check_budget
from jprotop.data import jpeg
from jprotop.data.batches import AugmentedEpochs, DeviceEpochs, to_float
from jprotop.data.dataset import Dataset, Split, load_dataset
from jprotop.errors import InputError
from jprotop.files import write_json
from jprotop.interchange import backbones
from jprotop.models.protopnet import ProtoPNet, check_variables, grid_of, make_model
from jprotop.training.checkpoints import Checkpoints, read_config

_log = logging.getLogger("jprotop")

VARIANTS = ("standard", "jpeg", "jpeg_augmented", "adversarial")


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
        "with --config.data.dir=DIR (and --config.data.name), or give image files with --images "
        "where a command takes them"
      )
    return self.data

  @property
  def config(self) -> dict:
    return self.info["config"]

  @property
  def class_names(self) -> list[str]:
    return self.info["class_names"]

  @property
  def provenance(self) -> dict[str, np.ndarray] | None:
    """Where each prototype came from (push.Provenance as arrays); None before the push."""
    return self.info["provenance"]

  @property
  def image_size(self) -> int:
    """S of the images that the network sees, in pixels."""
    return self.config["data"]["image_size"]

  @property
  def imported(self) -> bool:
    """Whether the network was trained elsewhere."""
    return "imported" in self.info

  def source(self, prototype: int) -> tuple[np.ndarray | None, regions.Box | None]:
    """The training image [S, S, 3] in [0, 1] that a prototype was pushed onto, as the network saw
    it, and its box there; None where that is not known."""
    if self.provenance is None:
      return None, None
    image = self.seen.train.pixels[self.provenance["image"][prototype]]
    return to_float(image), regions.Box(*self.provenance["box"][prototype].tolist())

  @functools.cached_property
  def digest(self) -> str:
    """Names the network's numbers and the images that it belongs to."""
    digest = hashlib.sha256(repr((self.model, self.info["data"], self.class_names)).encode())
    for name, array in sorted(flatten_dict(self.variables, sep="/").items()):
      digest.update(name.encode() + np.asarray(array).tobytes())
    return digest.hexdigest()[:16]

  @functools.cached_property
  def scheme(self) -> jpeg.Scheme:
    """The JPEG experiment's alteration of this data set, by this run's config."""
    return jpeg_scheme(self.config, len(self.class_names))

  @functools.cached_property
  def seen(self) -> Dataset:
    """The data set as the network was trained and pushed on it: altered where it was."""
    return as_trained(self.config, self.dataset)


def load(workdir: str | pathlib.Path) -> tuple[ProtoPNet, dict, dict]:
  """The network of a run; see `jprotop.load`."""
  path = pathlib.Path(workdir)
  config = read_config(path)
  if not (path / "checkpoints").is_dir():
    raise InputError(f"{path} holds no finished epoch yet; run experiments.train on it again")
  with contextlib.closing(Checkpoints(path)) as store:
    step = store.latest()
    if step is None:
      raise InputError(f"{path} holds no finished epoch yet; run experiments.train on it again")
    arrays, info = store.restore(step)
  model = make_model(config["model"], len(info["class_names"]), info.get("prototype_class"))
  params = {group: value for group, value in arrays["params"].items() if group != "classifier"}
  variables = jax.tree.map(
    jax.numpy.asarray, {"params": params, "batch_stats": arrays["batch_stats"]}
  )
  check_variables(model, variables, config["data"]["image_size"])
  return model, variables, {**info, "config": config, "provenance": arrays.get("provenance")}


def open_run(workdir: str | pathlib.Path, dataset: Dataset | None = None) -> Run:
  """The run in a folder; `dataset`, if already open, is checked to be its own."""
  model, variables, info = load(workdir)
  return Run(pathlib.Path(workdir), model, variables, info, dataset_of(info, dataset))


def check_new(place: pathlib.Path, flag: str) -> None:
  """InputError, before any work, unless a new run can be made in a folder."""
  if (place / "config.json").exists() or (place / "checkpoints").exists():
    raise InputError(f"{place} holds a run already; choose another --{flag}, or delete it")


def write_finished(
  place: pathlib.Path,
  config: dict,
  model: ProtoPNet,
  variables: dict,
  provenance: dict[str, np.ndarray] | None,
  info: dict,
) -> None:
  """Makes `place` a finished run of a network that was not trained there.

  Args:
    info: `class_names`, `data` (the data set's identity, or None) and `position`, and what else
      `load` is to return.
  """
  arrays = jax.tree.map(np.asarray, dict(variables))
  if provenance is not None:
    arrays["provenance"] = provenance
  labels = [int(label) for label in model.prototype_class]
  with contextlib.closing(Checkpoints(place)) as store:
    store.save(
      info["position"]["epochs_done"],
      model=arrays,
      optimizer={"present": np.array(False)},
      info={**info, "finished": True, "prototype_class": labels},
    )
  # Last, so that there is a run only where all of it is there.
  write_json(place / "config.json", config)


def is_finished(workdir: pathlib.Path) -> bool:
  """Whether a folder holds a run that was trained to its end."""
  try:
    return (workdir / "config.json").exists() and load(workdir)[2]["finished"]
  except InputError:
    return False


def jpeg_scheme(config: dict, num_classes: int) -> jpeg.Scheme:
  """The alteration of the JPEG experiment (Section 4): quality, and which classes."""
  settings, rule = config["jpeg"], config["jpeg"]["classes"]
  if rule == "default":
    rule = "odd" if config["protocol"] == "authors" else "half"
  classes = jpeg.choose_classes(str(rule), num_classes, settings["seed"])
  return jpeg.Scheme(settings["quality"], classes)


def as_trained(config: dict, dataset: Dataset) -> Dataset:
  """The data set as a network of this config sees it: altered for the JPEG experiment, or not."""
  if config["variant"] != "jpeg":
    return dataset
  return dataset.compressed(jpeg_scheme(config, len(dataset.class_names)))


def augmented_epochs(config: dict, split: Split, *, pretraining: bool = False) -> AugmentedEpochs:
  """What a config's phases see of a split. The coin of App. F.2 is tossed in the phases of the
  paper, not in the pretraining that comes before them."""
  settings, data, training = config["jpeg"], config["data"], config["training"]
  common = dict(copies=data["copies"], batch_size=training["batch_size"], seed=config["seed"])
  if data["augment"] == "device" and data["copies"]:
    return DeviceEpochs(split, **common)
  compressing = config["variant"] == "jpeg_augmented" and not pretraining
  return AugmentedEpochs(
    split,
    **common,
    compression=jpeg.Scheme(settings["quality"]) if compressing else None,
    probability=settings["probability"],
  )


def open_dataset(config: dict) -> Dataset:
  """The data set of a config."""
  data = config["data"]
  return load_dataset(
    data["name"],
    directory=data["dir"],
    image_size=data["image_size"],
    validation_share=data["validation_share"],
    seed=config["seed"],
    cache=data["cache"],
    toy=data["toy"],
  )


def check_config(config: dict) -> dict:
  """The config with its paths made absolute, after all its numbers were checked.

  Raises:
    InputError: before anything is written or computed.
  """
  if config["variant"] not in VARIANTS:
    raise InputError(
      f"variant {config['variant']!r} is not known; write --config=FILE:NAME with one of "
      f"{', '.join(VARIANTS)}"
    )
  model = make_model(config["model"], num_classes=2)
  data, training, attack = config["data"], config["training"], config["attack"]
  parallel.check_batch_size(training["batch_size"], "--config.training.batch_size")
  at_least = {
    "seed": (config["seed"], 0),
    "data.copies": (data["copies"], 0),
    "data.image_size": (data["image_size"], 1),
    "training.push_batch_size": (training["push_batch_size"], 1),
    "training.evaluation_batch_size": (training["evaluation_batch_size"], 1),
    "training.keep_checkpoints": (training["keep_checkpoints"], 1),
    "training.joint.decay_every": (training["joint"]["decay_every"], 1),
    "attack.num_images": (attack["num_images"], 1),
    "attack.batch_size": (attack["batch_size"], 0),
    "adversarial.last_layer_epochs": (config["adversarial"]["last_layer_epochs"], 0),
    "success_rate.num_images": (config["success_rate"]["num_images"], 1),
    "success_rate.top_k": (config["success_rate"]["top_k"], 1),
  }
  for name, (value, least) in at_least.items():
    if value < least:
      raise InputError(f"{name}={value} must be at least {least}; change --config.{name}")
  for section in ("attack", "robust"):
    check_budget(**{name: config[section][name] for name in ("eps", "step_size", "num_steps")})
  fgsm = config["adversarial"]
  check_budget(eps=fgsm["eps"], step_size=fgsm["step_size"], num_steps=1)
  jpeg.Scheme(config["jpeg"]["quality"])
  ablated = [name.strip() for name in config["success_rate"]["ablate"].split(",") if name.strip()]
  if unknown := set(ablated) - set(VARIANTS):
    raise InputError(
      f"success_rate.ablate: {unknown.pop()!r} is not known; it must be some of "
      f"{', '.join(VARIANTS)}, or nothing"
    )
  if not 0 <= config["jpeg"]["probability"] <= 1:
    raise InputError(f"jpeg.probability={config['jpeg']['probability']} must lie in [0, 1]")
  if data["augment"] not in ("host", "device"):
    raise InputError(f"data.augment={data['augment']!r} must be host or device")
  if data["augment"] == "device" and config["variant"].startswith("jpeg"):
    raise InputError(
      f"data.augment=device cannot make the images of {config['variant']}: JPEG acts on augmented "
      "copies at their own resolution, before the resize; take --config.data.augment=host"
    )
  if min(grid_of(model, data["image_size"])) < 2:
    raise InputError(
      f"data.image_size={data['image_size']} leaves {model.backbone} less than 2 x 2 cells; take "
      "larger images"
    )
  start = config["init"]["backbone"]
  return {
    **config,
    "data": {**data, "dir": _absolute(data["dir"])},
    "init": {"backbone": start if start == "torchvision" else _absolute(start)},
  }


def _absolute(path: str) -> str:
  return str(pathlib.Path(path).expanduser().absolute()) if path else ""


def backbone_file(config: dict) -> pathlib.Path | None:
  """The file that a config's backbone starts from, downloaded if need be; None: random weights."""
  start, cache = config["init"]["backbone"], config["data"]["cache"]
  if not start:
    return None
  cache = pathlib.Path(cache).expanduser() if cache else None
  return backbones.locate(start, config["model"]["backbone"], cache)


def dataset_of(info: dict, dataset: Dataset | None = None) -> Dataset | None:
  """The data set that a run (the `info` of `jprotop.load`) was trained on; None: not known.

  Raises:
    InputError: what is there now has other images, labels, boxes or splits.
  """
  if info["data"] is None:
    return None
  size = info["config"]["data"]["image_size"]
  try:
    dataset = dataset.at_size(size) if dataset else open_dataset(info["config"])
  except InputError as error:
    raise InputError(
      f"the images of this run: {error}\nIf they were moved, give the command that trained it "
      "again, with their new folder; an imported network is imported again"
    ) from error
  if dataset.identity != info["data"]:
    raise InputError(
      f"{info['config']['data']['dir'] or info['config']['data']['name']} does not hold the images "
      "that this run was trained on, with the same boxes and the same split into training and "
      "validation; bring them back, or train in another --workdir"
    )
  if not info["finished"]:
    _log.warning("this run has not finished its training; the numbers are those of its last epoch")
  return dataset


def read_history(workdir: str, info: dict) -> list[dict]:
  """The rows of a run's history.jsonl that belong to its last checkpoint."""
  path = pathlib.Path(workdir) / "history.jsonl"
  lines = path.read_text().splitlines() if path.exists() else []
  return [json.loads(line) for line in lines[: info["position"]["history_rows"]]]
