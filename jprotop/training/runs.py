"""What every command asks of a run: is its config sound, where are its images, how did it go."""

import json
import logging
import pathlib

from jprotop import parallel
from jprotop.attacks.pgd import check_budget
from jprotop.data.dataset import Dataset, load_dataset
from jprotop.errors import InputError
from jprotop.models.protopnet import grid_of, make_model

_log = logging.getLogger("jprotop")


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
  """The config with its data folder as an absolute path, after all its numbers were checked.

  Raises:
    InputError: before anything is written or computed.
  """
  model = make_model(config["model"], num_classes=2)
  data, training, attack = config["data"], config["training"], config["attack"]
  parallel.check_batch_size(training["batch_size"], "training.batch_size")
  at_least = {
    "seed": (config["seed"], 0),
    "data.copies": (data["copies"], 0),
    "data.image_size": (data["image_size"], 1),
    "training.push_batch_size": (training["push_batch_size"], 1),
    "training.evaluation_batch_size": (training["evaluation_batch_size"], 1),
    "training.keep_checkpoints": (training["keep_checkpoints"], 1),
    "training.joint.decay_every": (training["joint"]["decay_every"], 1),
    "attack.num_images": (attack["num_images"], 1),
    "attack.batch_size": (attack["batch_size"], 1),
  }
  for name, (value, least) in at_least.items():
    if value < least:
      raise InputError(f"{name}={value} must be at least {least}; change --config.{name}")
  check_budget(**{name: attack[name] for name in ("eps", "step_size", "num_steps")})
  if min(grid_of(model, data["image_size"])) < 2:
    raise InputError(
      f"data.image_size={data['image_size']} leaves {model.backbone} less than 2 x 2 cells; take "
      "larger images"
    )
  directory = str(pathlib.Path(data["dir"]).expanduser().absolute()) if data["dir"] else ""
  return {**config, "data": {**data, "dir": directory}}


def dataset_of(info: dict, dataset: Dataset | None = None) -> Dataset:
  """The data set that a run (the `info` of `jprotop.load`) was trained on.

  Raises:
    InputError: what is there now has other images, labels, boxes or splits.
  """
  dataset = dataset or open_dataset(info["config"])
  if dataset.identity != info["data"]:
    raise InputError(
      f"{info['config']['data']['dir'] or info['config']['data']['name']} does not hold the images "
      "that this run was trained on; bring them back, or train in another --workdir"
    )
  if not info["finished"]:
    _log.warning("this run has not finished its training; the numbers are those of its last epoch")
  return dataset


def read_history(workdir: str, info: dict) -> list[dict]:
  """The rows of a run's history.jsonl that belong to its last checkpoint."""
  path = pathlib.Path(workdir) / "history.jsonl"
  lines = path.read_text().splitlines() if path.exists() else []
  return [json.loads(line) for line in lines[: info["position"]["history_rows"]]]
