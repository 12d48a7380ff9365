"""results.json: every number, its count, its interval, and where it came from.

There is one form, of a run's folder and of a study's: what an experiment measured stands under its
name, by network, also where there is one. What an experiment's record holds is a typed class in its
own file; docs/results.schema.json is made of them all. A share is {"value", "count", "total",
"interval"}, a mean {"value", "total", "interval"}: the interval is the 95% one, [low, high]; value
and interval are None where total is 0. A mean over seeds has "std" too, and no interval where there
is one seed.

form            of this file: 2
jprotop         the version that wrote it
config          of the run, or of the study
environment     {command: versions, device, commit, time}
data            names the images: the data set's identity
NAME            {network: record}, of each experiment that was measured
table1 ... 4    rows of jprotop.report.paper_tables (a study's)
claims          rows of jprotop.report.verdicts (a study's)
sources         what was collected (of reproduce --collect)
"""

import importlib.metadata
import json
import pathlib
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from jprotop.errors import InputError
from jprotop.files import write_json
from jprotop.runs.records import FORM, check_form

_PACKAGES = ("jprotop", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")


def read_results(workdir: str | pathlib.Path) -> dict:
  """What was written so far; nothing yet is an empty dictionary."""
  path = pathlib.Path(workdir) / "results.json"
  if not path.exists():
    return {}
  try:
    found = json.loads(path.read_text())
  except ValueError as error:
    raise InputError(f"{path} is not JSON ({error}); move it away and run again") from error
  check_form(found, str(path))
  return found


def update_results(
  workdir: str | pathlib.Path,
  config: dict,
  command: str,
  records: Mapping[str, Callable[[Any], Any]],
  **fields: Any,
) -> dict:
  """Adds what a command found on a run's network to its results.json, atomically.

  Args:
    command: whose numbers these are: `environment` keeps one entry for each.
    records: by experiment, a function from the network's record so far (None: none) to the new one.
    fields: other top-level fields, such as `data`.
  """
  before, network = read_results(workdir), config["train"]["network"]
  sections = {
    name: {**before.get(name, {}), network: change(before.get(name, {}).get(network))}
    for name, change in records.items()
  }
  results = {
    **before,
    **header(config),
    "environment": {**before.get("environment", {}), command: environment()},
    **fields,
    **sections,
  }
  write_json(pathlib.Path(workdir) / "results.json", results)
  return results


def header(config: dict) -> dict:
  """What stands at the top of every results.json."""
  return {"form": FORM, "jprotop": importlib.metadata.version("jprotop"), "config": config}


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
  if not (here.parent.parent / ".git").exists():
    return None  # Installed: a repository around it is somebody else's.
  command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
  try:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
  except (OSError, subprocess.TimeoutExpired):
    return None
  return done.stdout.strip() or None
