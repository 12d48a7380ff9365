"""What a config may hold: numbers within their bounds, known names, and what goes together."""

import pathlib
from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict

from jprotop import parallel
from jprotop.attacks.budget import Budget
from jprotop.attacks.objectives import OBJECTIVES
from jprotop.data import dataset  # noqa: F401 (it brings the data sets and alterations)
from jprotop.data.alterations import Scheme
from jprotop.errors import InputError, excerpt
from jprotop.files import user_path
from jprotop.networks.families import first_parts
from jprotop.prototypes.initial import check_initial
from jprotop.prototypes.protopnet import grid_of, make_model
from jprotop.runs.config import NETWORKS, PROTOCOLS, Number, defaults
from jprotop.runs.config_keys import names_in
from jprotop.torch_io import backbones


def check_config(config: dict) -> dict:
  """The config with its paths made absolute, after all its numbers were checked.

  Raises:
    InputError: before anything is written or computed.
  """
  check_values(config)
  for check in (_check_train, _check_start, _check_alteration, _check_measure):
    check(config)
  start = config["train"]["init"]["backbone"]
  start = start if start in backbones.SOURCES else _absolute(start)
  return {
    **config,
    "extensions": ",".join(map(_absolute, names_in(config["extensions"]))),
    "data": {**config["data"], "dir": _absolute(config["data"]["dir"])},
    "train": {**config["train"], "init": {**config["train"]["init"], "backbone": start}},
  }


def check_measuring(config: dict) -> dict:
  """The config of a run that is measured, after the numbers that this depends on were checked."""
  check_values(config)
  for check in (_check_alteration, _check_measure):
    check(config)
  return {**config, "data": {**config["data"], "dir": _absolute(config["data"]["dir"])}}


def _absolute(path: str) -> str:
  return str(user_path(path).absolute()) if path else ""


def check_values(config: Mapping[str, Any]) -> None:
  """InputError unless every key of the defaults is there, of its type, and within its bounds.

  There may be others, which extensions read.
  """
  if problems := _problems(config):
    lines = [f"{text}; change --config.{key}" for key, text in problems.items()]
    raise InputError("\n".join(lines))


def check_stored(config: Mapping[str, Any], path: pathlib.Path) -> None:
  """The same of a config that was read from a file of a run.

  Raises:
    InputError: it is not as it was written; names the file and its keys.
  """
  if problems := _problems(config):
    lines = list(problems.values())
    lines = lines if len(lines) <= 10 else [*lines[:10], f"and {len(lines) - 10} more"]
    raise InputError(
      f"{path} is damaged, was edited, or is of another version of jprotop; bring it back, or "
      "train in another --workdir\n  " + "\n  ".join(lines)
    )


def _problems(config: Mapping[str, Any]) -> dict[str, str]:
  """What is wrong with values, by their keys."""
  given, problems = flatten_dict(dict(config), sep="."), {}
  for key, default in flatten_dict(defaults(), sep=".").items():
    if key not in given:
      problems[key] = f"the config has no {key}, which it must have"
    elif problem := _problem(given[key], default):
      problems[key] = f"{key}={excerpt(given[key], 60)} must be {problem}"
  return problems


def _problem(value: Any, default: Any) -> str:
  """What a value must be, where it is not; else nothing."""
  if not isinstance(default, Number):
    wanted = "true or false" if isinstance(default, bool) else "a text"
    return "" if isinstance(value, type(default)) else wanted
  types = (int, float) if isinstance(default.default, float) else (int,)
  fits = isinstance(value, types) and not isinstance(value, bool)
  # NaN is not between anything.
  if fits and default.least <= value <= default.most:
    return ""
  kind = "a number" if float in types else "a whole number"
  return f"{kind} from {default.least} to {default.most}"


def _check_train(config: dict) -> None:
  train, data = config["train"], config["train"]["data"]
  if train["network"] not in NETWORKS:
    raise InputError(
      f"train.network={train['network']!r} is not known; write --config=FILE:NAME with one of "
      f"{', '.join(NETWORKS)}"
    )
  model = make_model(train["model"], num_classes=2)
  parallel.check_batch_size(train["batch_size"], "--config.train.batch_size")
  Budget(**{name: train["adversarial"][name] for name in ("eps", "step_size", "num_steps")})
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


def _check_start(config: dict) -> None:
  """How the network starts, and what of it stays so."""
  train = config["train"]
  check_initial(train["init"]["add_on"], train["init"]["prototypes"])
  frozen = train["frozen"]["parts"]
  first_parts(train["model"]["backbone"], frozen)
  if frozen and train["pretrain"]["epochs"]:
    raise InputError(
      f"train.frozen.parts={frozen} keeps layers as they start, but "
      f"train.pretrain.epochs={train['pretrain']['epochs']} trains them first; set one of them to 0"
    )


def _check_alteration(config: dict) -> None:
  for part in ("train", "measure"):
    settings = config[part]["alteration"]
    Scheme(settings["name"], settings["parameter"])
    if config["train"]["data"]["twins"] and settings["classes"] not in ("default", "odd"):
      raise InputError(
        f"{part}.alteration.classes={settings['classes']!r}, but train.data.twins=True makes twins "
        "of each class, of which one is altered; leave it at default"
      )


def _check_measure(config: dict) -> None:
  measure = config["measure"]
  if measure["protocol"] not in PROTOCOLS:
    raise InputError(f"measure.protocol={measure['protocol']!r} must be one of {PROTOCOLS}")
  if measure["attack"]["objective"] not in OBJECTIVES:
    raise InputError(
      f"measure.attack.objective={measure['attack']['objective']!r} is not known; it must be one "
      f"of {', '.join(OBJECTIVES)}"
    )
  for section in ("attack", "class_pgd"):
    Budget(**{name: measure[section][name] for name in ("eps", "step_size", "num_steps")})
  if unknown := set(names_in(measure["success_rate"]["ablate"])) - NETWORKS.keys():
    raise InputError(
      f"measure.success_rate.ablate: {unknown.pop()!r} is not known; it must be some of "
      f"{', '.join(NETWORKS)}, or nothing"
    )
