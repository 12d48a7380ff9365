"""Flags: those that commands share, those of an experiment, and config keys as flags.

A number given to a command and a number in a config are the same thing: --eps=8/255 is another name
for --config.measure.attack.eps=8/255.
"""

import difflib
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags
from flax.traverse_util import flatten_dict
from ml_collections import config_flags

from jprotop.errors import InputError, excerpt
from jprotop.experiments.experiment import Flag
from jprotop.files import user_path
from jprotop.runs import config as config_lib
from jprotop.runs import config_files, config_keys, processes

FLAGS = flags.FLAGS
# What a command that measures may change of a run's config.
MEASURED = ("measure", "compute", "data", "extensions")


class Fraction(flags.ArgumentParser):
  """A number, written 0.0314 or 8/255."""

  def flag_type(self) -> str:
    return "float"

  def parse(self, argument) -> float:
    numerator, _, denominator = str(argument).partition("/")
    if denominator and float(denominator) == 0:
      raise ValueError("its denominator is 0")
    return float(numerator) / float(denominator or 1)


config_flags.register_flag_parser_for_type(float, Fraction())


def define_workdir() -> None:
  flags.DEFINE_string("workdir", None, "Folder of the run.")


def define_out(otherwise: str) -> None:
  """Adds --out; `otherwise` says what holds where it is not given."""
  flags.DEFINE_string("out", None, f"Folder for what it writes; {otherwise}.")


def define_config(*, trains: bool) -> None:
  """Adds --config and all its keys.

  Args:
    trains: whether the config is that of a training, so that a file must be given; else the run in
      --workdir has one, and what is given changes it.
  """
  default = None if trains else str(config_files.config_folder() / "base.py")
  text = "Config file, or the name of one of jprotop's own." if trains else "Changes of the run's."
  config_flags.DEFINE_config_file("config", default, text)


def define(flag: Flag) -> None:
  """Adds a flag of an experiment's command."""
  default = None if flag.setting else flag.default
  text = f"{flag.help} (--config.{flag.setting})" if flag.setting else flag.help
  if flag.choices:
    flags.DEFINE_enum(flag.name, default, list(flag.choices), text)
  elif flag.kind is int:
    most = None if flag.setting else flag.most
    flags.DEFINE_integer(flag.name, default, text, lower_bound=flag.least, upper_bound=most)
  elif flag.kind is float:
    flags.DEFINE(Fraction(), flag.name, default, text, serializer=flags.ArgumentSerializer())
  elif flag.kind is bool:
    flags.DEFINE_boolean(flag.name, default, text)
  elif flag.kind is list:
    flags.DEFINE_list(flag.name, default, text)
  else:
    flags.DEFINE_string(flag.name, default, text)


def arguments_of(wanted: Sequence[Flag]) -> dict[str, Any]:
  """What the flags of an experiment pass to its `measure`."""
  values = {flag.name: FLAGS[flag.name].value for flag in wanted if not flag.setting}
  return {name: value for name, value in values.items() if value is not None}


def changes_of(wanted: Sequence[Flag] = ()) -> dict[str, Any]:
  """{key: value} of what flags and --config change of a run's config.

  Raises:
    InputError: a key belongs to the training, which is over.
  """
  given = dict(config_flags.get_override_values(FLAGS["config"]))
  if FLAGS["config"].present and config_flags.get_config_filename(FLAGS["config"]):
    given = flatten_dict(FLAGS.config.to_dict(), sep=".") | given
    given = {key: value for key, value in given.items() if key.split(".")[0] in MEASURED}
  named = {flag.setting: FLAGS[flag.name].value for flag in wanted if flag.setting}
  given |= {key: value for key, value in named.items() if value is not None}
  for key in given:
    if key.split(".")[0] not in MEASURED:
      raise InputError(
        f"--config.{key} belongs to the training of the run, which is over; where one measures, "
        "only config.measure, config.compute and config.data can be changed"
      )
  return given


def config() -> dict:
  """The --config given, as plain values."""
  if FLAGS.config is None:
    raise InputError(
      "--config is missing; name a config file or one of jprotop's own, as in --config=demo "
      f"({', '.join(config_files.config_names())})"
    )
  return FLAGS.config.to_dict()


def config_if_given() -> dict | None:
  """None also where a command takes no --config."""
  return config() if "config" in FLAGS and FLAGS.config is not None else None


def trains_config() -> bool:
  """Whether the command's --config is that of a training."""
  return "config" in FLAGS and FLAGS["config"].default is None


def workdir(*, must_exist: bool = False) -> pathlib.Path:
  """The --workdir given; an error that says so if there is none."""
  if not FLAGS.workdir:
    raise InputError("--workdir is missing; name the folder of the run, as in --workdir=runs/demo")
  path = user_path(FLAGS.workdir)
  if must_exist:
    processes.from_first(lambda: _check_is_run(path))
  return path


def _check_is_run(path: pathlib.Path) -> None:
  if (path / "config.json").exists():
    return
  if networks := sorted(p.parent.name for p in path.glob("*/config.json")):
    raise InputError(
      f"--workdir={path} holds a study; name one of its networks, as in "
      f"--workdir={path / networks[-1]} ({', '.join(networks)})"
    )
  raise InputError(
    f"--workdir={path} holds no run; train one with jprotop train --config=demo --workdir={path}"
  )


def parse(arguments: list[str]) -> list[str]:
  """What is left of the arguments after their flags.

  Raises:
    InputError: a flag, a config file or a config key does not exist, or has a wrong value.
  """
  try:
    return FLAGS(arguments)
  except flags.Error as error:
    raise InputError(
      f"{excerpt(error, 1000)}; jprotop {pathlib.Path(arguments[0]).name} --help lists all"
    ) from error
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise InputError(excerpt(error, 1000)) from error


def prepare(arguments: list[str]) -> list[str]:
  """The arguments with config files by their paths; loads the extensions that they name.

  Raises:
    InputError: a config file or an extension does not run, or a config key does not exist.
  """
  prepared, config_file, extensions = [], None, []
  items = iter(arguments)
  for item in items:
    name, equals, value = item.lstrip("-").partition("=")
    if item.startswith("-") and name == "config":
      text = value if equals else next(items, "")
      file, colon, network = text.partition(":")
      path = config_files.config_path(file)
      config_file = config_files.load_file(path)
      item = f"--config={path}{colon}{network}"
      given = config_file.get_config(*([network] if colon else []))
      extensions += config_keys.names_in(given.extensions)
    elif item.startswith("-") and name == "config.extensions":
      extensions += config_keys.names_in(value)
    prepared.append(item)
  _check_keys(arguments)
  config_files.load_extensions(extensions)
  return prepared


def _check_keys(arguments: Sequence[str]) -> None:
  """InputError that names every --config.KEY that there is not, and what it should be."""
  known = list(flatten_dict(config_lib.get_config().to_dict(), sep="."))
  given = [a.lstrip("-").partition("=")[0] for a in arguments if a.startswith("-")]
  keys = [name.removeprefix("config.") for name in given if name.startswith("config.")]
  lines = []
  for key in (key for key in keys if key not in known):
    present = config_keys.present_key(key)
    if present in known:
      lines.append(f"the config key {key} is {present} since jprotop 0.2")
    else:
      nearest = difflib.get_close_matches(key, known, 1, 0)[0]
      lines.append(f"unknown config key {key}; the nearest is {nearest}")
  if lines:
    raise InputError("\n".join(lines))
