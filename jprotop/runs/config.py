"""The defaults: the paper's setup (App. B) on ResNet-18, and what each section may hold.

A config has four sections. `train` is all that changes a training, `measure` all that is only
measured; `data` says where things lie and `compute` how the machine is used: neither changes a
number beyond rounding. Every config file is a delta on these defaults and takes the network to be
trained as its argument, as in --config=demo:altered. The paper needs four:

  standard      on the images as they are (Section 3)
  altered       some classes' images altered, JPEG compressed, in all splits (Section 4)
  remedied      each image altered with probability 0.5, drawn anew in every pass (App. F.2)
  adversarial   on images changed by fast FGSM (App. F.1)
"""

import pathlib

from ml_collections import ConfigDict

from jprotop import parallel
from jprotop.attacks.budget import Budget
from jprotop.attacks.objectives import OBJECTIVES
from jprotop.data import dataset  # noqa: F401 (it brings the data sets and alterations)
from jprotop.data.alterations import Scheme
from jprotop.errors import InputError
from jprotop.prototypes.protopnet import grid_of, make_model
from jprotop.runs.config_keys import names_in

# The networks of a study, and the sections of `train` that are about them alone.
NETWORKS = {
  "standard": (),
  "altered": ("alteration",),
  "remedied": ("alteration", "remedy"),
  "adversarial": ("adversarial",),
}
PROTOCOLS = ("paper", "authors")


def get_config(network: str = "standard") -> ConfigDict:
  config = ConfigDict()
  # Files of Python, with commas between, that register what jprotop lacks: see docs/extending.md.
  config.extensions = ""
  # Where things lie: the CUB_200_2011 folder or .tgz, or a user's folder; and prepared data, where
  # "" is $JPROTOP_CACHE or ~/.cache/jprotop.
  config.data = ConfigDict({"dir": "", "cache": ""})
  config.train = _train(network)
  config.measure = _measure(config.train)
  config.compute = ConfigDict(
    {
      "push_batch_size": 50,
      "evaluation_batch_size": 100,
      "attack_batch_size": 0,  # images at once; 0: as many as the devices hold
      "keep_checkpoints": 2,
    }
  )
  return config.lock()


def _train(network: str) -> ConfigDict:
  """All that changes a training."""
  train = ConfigDict()
  train.network = network
  train.protocol = "paper"  # or "authors": what the reference code computes, slips included
  train.seed = 0
  train.data = ConfigDict(_data())
  train.model = ConfigDict(_model())
  # What the backbone starts from: "" is random weights, "torchvision" ImageNet's (downloaded once),
  # or a .pth file: torchvision's, or the iNaturalist ResNet-50 of later prototype networks.
  train.init = ConfigDict({"backbone": ""})
  train.loss = ConfigDict({"cluster": 0.8, "separation": -0.08, "l1": 1e-4})
  train.batch_size = 80
  train.weight_decay = 1e-3
  train.update(_phases())
  # What images are altered by, and which classes: half of them drawn from the seed, odd labels, or
  # labels such as "0,3,5"; default: half in `paper`, odd in `authors`. JPEG's parameter is its
  # quality.
  train.alteration = ConfigDict(
    {"name": "jpeg", "parameter": 20.0, "classes": "default", "seed": 0}
  )
  # The remedied network sees each image altered with this probability.
  train.remedy = ConfigDict({"probability": 0.5})
  # What the adversarial network sees: a method of training/robust.py and its numbers, in units of
  # [0, 1]; and how long its last layer is tuned.
  train.adversarial = ConfigDict(
    {"method": "fast_fgsm", "eps": 8 / 255, "step_size": 10 / 255, "last_layer_epochs": 1}
  )
  return train


def _data() -> dict:
  """Which images, and how many copies of them."""
  return {
    "name": "cub",  # cub, toybirds or folder
    "image_size": 224,
    "validation_share": 0.1,  # of the training images of each class
    "copies": 40,  # augmented copies of each image in an epoch; 0: the image itself
    # Where copies are made: host (the reference, Pillow at the crop's own resolution), or device
    # (the resized crops lie there; the same transforms as one resampling; not where images are
    # altered).
    "augment": "host",
    # ToyBirds only.
    "toy": {"num_classes": 8, "images_per_class": 30, "size": 160, "seed": 0},
  }


def _model() -> dict:
  """The network."""
  return {
    "backbone": "resnet18",
    "addon": "regular",
    "prototypes_per_class": 10,
    "prototype_depth": 128,
    "similarity": "log",
    "distance": "squared_l2",
    "dtype": "float32",  # or bfloat16; distances stay float32
  }


def _phases() -> dict:
  """Rates, epochs and schedules of the phases."""
  return {
    # A spell as a plain classifier, for a backbone that starts from nothing; 0 epochs: none.
    "pretrain": {
      "epochs": 0,
      "learning_rate": {"features": 1e-3, "classifier": 1e-3},
      "schedule": "cosine",
    },
    "warm": {"epochs": 5, "learning_rate": {"add_on": 3e-3, "prototypes": 3e-3}},
    "joint": {
      "epochs": 6,
      "learning_rate": {"features": 1e-4, "add_on": 3e-3, "prototypes": 3e-3},
      "schedule": "step",
      "decay_every": 5,
    },
    "last_layer": {"epochs": 20, "learning_rate": {"last_layer": 1e-4}},
  }


def _measure(train: ConfigDict) -> ConfigDict:
  """All that is only measured; what follows the training does so unless it is given."""
  measure = ConfigDict()
  measure.seed = train.get_oneway_ref("seed")  # of drawn images and noise
  measure.protocol = train.get_oneway_ref("protocol")
  measure.attack = ConfigDict(
    {
      "num_images": 20,  # Head on Stomach and vanishing head
      "eps": 8 / 255,
      "step_size": 2 / 255,
      "num_steps": 40,
      "objective": "move",  # a name of attacks/objectives.py: what Head on Stomach raises
      "random_start": True,
      "survive_jpeg": 0,  # quality of a JPEG file that pictures pass before they are seen; 0: none
    }
  )
  measure.success_rate = ConfigDict({"num_images": 200, "top_k": 5, "ablate": "standard"})
  measure.class_pgd = ConfigDict({"eps": 8 / 255, "step_size": 2 / 255, "num_steps": 10})
  # The altered test images, of every network.
  measure.alteration = ConfigDict()
  for name in ("name", "parameter", "classes", "seed"):
    measure.alteration[name] = train.alteration.get_oneway_ref(name)
  return measure


# --- checks


def check_config(config: dict) -> dict:
  """The config with its paths made absolute, after all its numbers were checked.

  Raises:
    InputError: before anything is written or computed.
  """
  for check in (_check_train, _check_alteration, _check_measure, _check_compute):
    check(config)
  start = config["train"]["init"]["backbone"]
  start = start if start == "torchvision" else _absolute(start)
  return {
    **config,
    "extensions": ",".join(map(_absolute, names_in(config["extensions"]))),
    "data": {**config["data"], "dir": _absolute(config["data"]["dir"])},
    "train": {**config["train"], "init": {"backbone": start}},
  }


def check_measuring(config: dict) -> dict:
  """The config of a run that is measured, after the numbers that this depends on were checked."""
  for check in (_check_alteration, _check_measure, _check_compute):
    check(config)
  return {**config, "data": {**config["data"], "dir": _absolute(config["data"]["dir"])}}


def _absolute(path: str) -> str:
  return str(pathlib.Path(path).expanduser().absolute()) if path else ""


def _at_least(least: float, **numbers: float) -> None:
  """InputError, naming it, unless a number, its key's dots written __, is so large."""
  for name, value in numbers.items():
    if value < least:
      key = name.replace("__", ".")
      raise InputError(f"{key}={value} must be at least {least}; change --config.{key}")


def _check_train(config: dict) -> None:
  train, data = config["train"], config["train"]["data"]
  if train["network"] not in NETWORKS:
    raise InputError(
      f"train.network={train['network']!r} is not known; write --config=FILE:NAME with one of "
      f"{', '.join(NETWORKS)}"
    )
  model = make_model(train["model"], num_classes=2)
  parallel.check_batch_size(train["batch_size"], "--config.train.batch_size")
  _at_least(
    0,
    train__seed=train["seed"],
    train__data__copies=data["copies"],
    train__adversarial__last_layer_epochs=train["adversarial"]["last_layer_epochs"],
  )
  _at_least(
    1,
    train__data__image_size=data["image_size"],
    train__joint__decay_every=train["joint"]["decay_every"],
  )
  fgsm = train["adversarial"]
  Budget(eps=fgsm["eps"], step_size=fgsm["step_size"], num_steps=1)
  if data["augment"] not in ("host", "device"):
    raise InputError(f"train.data.augment={data['augment']!r} must be host or device")
  if data["augment"] == "device" and "alteration" in NETWORKS[train["network"]]:
    raise InputError(
      f"train.data.augment=device cannot make the images of the {train['network']} network: they "
      "are altered as augmented copies at their own resolution, before the resize; take "
      "--config.train.data.augment=host"
    )
  if min(grid_of(model, data["image_size"])) < 2:
    raise InputError(
      f"train.data.image_size={data['image_size']} leaves {model.backbone} less than 2 x 2 cells; "
      "take larger images"
    )


def _check_alteration(config: dict) -> None:
  for part in ("train", "measure"):
    settings = config[part]["alteration"]
    Scheme(settings["name"], settings["parameter"])
  probability = config["train"]["remedy"]["probability"]
  if not 0 <= probability <= 1:
    raise InputError(f"train.remedy.probability={probability} must lie in [0, 1]")


def _check_measure(config: dict) -> None:
  measure = config["measure"]
  rate = measure["success_rate"]
  _at_least(0, measure__seed=measure["seed"])
  _at_least(
    1,
    measure__attack__num_images=measure["attack"]["num_images"],
    measure__success_rate__num_images=rate["num_images"],
    measure__success_rate__top_k=rate["top_k"],
  )
  if measure["protocol"] not in PROTOCOLS:
    raise InputError(f"measure.protocol={measure['protocol']!r} must be one of {PROTOCOLS}")
  if measure["attack"]["objective"] not in OBJECTIVES:
    raise InputError(
      f"measure.attack.objective={measure['attack']['objective']!r} is not known; it must be one "
      f"of {', '.join(OBJECTIVES)}"
    )
  for section in ("attack", "class_pgd"):
    Budget(**{name: measure[section][name] for name in ("eps", "step_size", "num_steps")})
  if unknown := set(names_in(rate["ablate"])) - NETWORKS.keys():
    raise InputError(
      f"measure.success_rate.ablate: {unknown.pop()!r} is not known; it must be some of "
      f"{', '.join(NETWORKS)}, or nothing"
    )


def _check_compute(config: dict) -> None:
  compute = config["compute"]
  _at_least(0, compute__attack_batch_size=compute["attack_batch_size"])
  for name in ("push_batch_size", "evaluation_batch_size", "keep_checkpoints"):
    _at_least(1, **{f"compute__{name}": compute[name]})


# --- what a config says


def trained_part(config: dict) -> dict:
  """What of a config the training of its network depends on, but for the images themselves."""
  train = config["train"]
  others = {section for sections in NETWORKS.values() for section in sections}
  others -= set(NETWORKS[train["network"]])
  kept = {name: value for name, value in train.items() if name not in others}
  # Wherever its file lies.
  kept["init"] = {"backbone": pathlib.PurePath(train["init"]["backbone"]).name}
  return kept
