"""Config files by name or by path, and the files of Python that they extend jprotop with.

A config file is Python that whoever starts a command names, so it is run. The config.json of a run
is data: extensions that it names are asked for, and never loaded from there.
"""

import importlib.util
import pathlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from jprotop.errors import InputError
from jprotop.files import user_path
from jprotop.runs.config_keys import names_in

_HERE = pathlib.Path(__file__).parent.parent
# Extensions that were run, by their whole paths.
_loaded: set[str] = set()


def config_folder() -> pathlib.Path:
  """Where jprotop's own config files lie: in the package, or in the checkout around it."""
  packaged = _HERE / "_configs"
  return packaged if packaged.is_dir() else _HERE.parent / "configs"


def config_names() -> list[str]:
  return sorted(p.stem for p in config_folder().glob("*.py") if p.stem not in ("__init__", "base"))


def config_path(text: str) -> pathlib.Path:
  """The file of a config that is given as a path, or as the name of one of jprotop's own.

  Raises:
    InputError: there is no such file; the message lists the names.
  """
  path, own = user_path(text), config_folder() / f"{text}.py"
  if path.is_file():
    return path
  if own.is_file():
    return own
  # What the checkout calls configs/demo.py is there under its name where no checkout is.
  inside = config_folder() / path.name
  if path.parent == pathlib.Path("configs") and inside.is_file():
    return inside
  raise InputError(
    f"the config {text} cannot be read: there is no such file; give the path of one, or a name: "
    f"{', '.join(config_names())}"
  )


def named_config(name: str, network: str) -> ConfigDict:
  """One of jprotop's own configs, for another that is a delta on it."""
  return load_file(config_folder() / f"{name}.py").get_config(network)


def load_file(path: pathlib.Path) -> ModuleType:
  """Runs a file of Python that the user named, as a module.

  Raises:
    InputError: there is no such file, or it does not run; the message has the line.
  """
  path = user_path(path).absolute()
  if not path.is_file():
    raise InputError(f"{path} does not exist; give a file of Python")
  name = f"jprotop_file_{path.stem}_{abs(hash(path))}"
  if name in sys.modules:
    return sys.modules[name]
  spec = importlib.util.spec_from_file_location(name, path)
  if spec is None or spec.loader is None:
    raise InputError(f"{path} is no file of Python; its name must end in .py")
  module = importlib.util.module_from_spec(spec)
  sys.modules[name] = module
  try:
    spec.loader.exec_module(module)
  except Exception as error:
    del sys.modules[name]
    if isinstance(error, InputError):
      raise InputError(f"{path}: {error}") from error
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    line = lines[-1] if lines else getattr(error, "lineno", None)
    where = f", line {line}" if line else ""
    raise InputError(
      f"{path}{where} does not run: {type(error).__name__}: {error}; mend the file"
    ) from error
  return module


def check_extensions(config: Mapping[str, Any]) -> None:
  """InputError where a run needs extensions that are not there: its config.json loads none."""
  missing = [p for p in names_in(config.get("extensions", "")) if _absolute(p) not in _loaded]
  if missing:
    raise InputError(
      f"this run was made with {', '.join(missing)}, which is not loaded from a run's own files; "
      f"look at it, and give --config.extensions={','.join(missing)} (in Python: "
      "jprotop.load_extensions)"
    )


def _absolute(path: str) -> str:
  return str(user_path(path).absolute())


def load_extensions(paths: Sequence[str]) -> None:
  """Runs the files that a config extends jprotop with, each once; they register what they add."""
  for path in paths:
    load_file(pathlib.Path(path))
    _loaded.add(_absolute(path))
