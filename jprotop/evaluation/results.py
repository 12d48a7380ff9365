"""results.json: every number of a run, its count, its interval, and where it came from.

Sections: `config`, `environment` (of each command that wrote numbers), `seed`, `protocol`, `train`
(the data set's identity), `evaluate` (per split: accuracy, confusion), `push`, `head_on_stomach`.
A number is {value, total, interval}, a share has its `count` too.
"""

import importlib.metadata
import json
import pathlib
import platform
import subprocess
import time
from typing import Any

import jax

from jprotop.errors import InputError
from jprotop.files import write_json

_PACKAGES = ("jprotop", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")


def read_results(workdir: str | pathlib.Path) -> dict:
  """The sections written so far; none yet is an empty dictionary."""
  path = pathlib.Path(workdir) / "results.json"
  if not path.exists():
    return {}
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise InputError(f"{path} is not JSON ({error}); move it away and run again") from error


def update_results(
  workdir: str | pathlib.Path, config: dict, command: str, **sections: Any
) -> dict:
  """Replaces the given sections, keeps the others, and writes results.json atomically.

  `command` says whose numbers these are: `environment` keeps one entry for each.
  """
  before = read_results(workdir)
  results = {
    **before,
    "config": config,
    "seed": config["seed"],
    "protocol": config["protocol"],
    "environment": {**before.get("environment", {}), command: environment()},
    **sections,
  }
  write_json(pathlib.Path(workdir) / "results.json", results)
  return results


def environment() -> dict:
  """Versions, device and commit that the numbers came from."""
  versions = {}
  for name in _PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      versions[name] = "not installed"
  device = jax.devices()[0]
  return {
    "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    "python": platform.python_version(),
    "platform": f"{platform.system()} {platform.machine()}",
    "device": f"{jax.device_count()} x {device.device_kind}",
    "versions": versions,
    "commit": _commit(),
  }


def _commit() -> str | None:
  """The commit of the source tree that this runs from; None outside one."""
  here = pathlib.Path(__file__).parent
  command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
  try:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
  except (OSError, subprocess.TimeoutExpired):
    return None
  return done.stdout.strip() or None
