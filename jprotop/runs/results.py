"""results.json: every number, its count, its interval, and where it came from.

There is one form, of a run's folder and of a study's: what an experiment measured stands under its
name, by network, also where there is one. What an experiment's record holds is a typed class in its
own file; docs/results.schema.json is made of them all. A share is {"value", "count", "total",
"interval"}, a mean {"value", "total", "interval"}: the interval is the 95% one, [low, high]; value
and interval are None where total is 0. A mean over seeds has "std" too, and no interval where there
is one seed.

form            of this file: 4
jprotop         the version that wrote it
config          of the run, or of the study
environment     {command: versions, device, commit, time}
data            names the images: the data set's identity
NAME            {network: record}, of each experiment that was measured
table1 ... 4    rows of jprotop.report.paper_tables (a study's); `targets`: one more such table
claims          rows of jprotop.report.verdicts (a study's)
files           {NAME: {network: {path: hash}}}: the figures and arrays that belong to the records
sources         the studies that were collected; `factors`: their numbers and claims as one
digests         {key: digest} of all others, by which an entry that was edited is known
"""

import contextlib
import importlib.metadata
import logging
import pathlib
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from jprotop.errors import InputError
from jprotop.files import one_at_a_time, read_json, write_json
from jprotop.runs.records import FORM, check_form
from jprotop.runs.sealed import digest_of

_log = logging.getLogger("jprotop")

_PACKAGES = ("jprotop", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")


def read_results(workdir: str | pathlib.Path) -> dict:
  """What was written so far; nothing yet is an empty dictionary.

  Raises:
    InputError: the file is damaged, of another form, or an entry was changed since it was written.
  """
  path = _path(workdir)
  if not path.exists():
    return {}
  found = read_json(path, remedy="move it away and run again")
  check_form(found, str(path))
  if "digests" not in found:
    raise InputError(
      f"{path} has no digests, without which edited numbers cannot be told from measured ones; "
      "move it away and give the command that measured them again"
    )
  if edited := _edited(found):
    raise InputError(
      f"{path}: {', '.join(edited)} was changed since jprotop wrote it, so that its numbers cannot "
      "be told from measured ones; delete that entry, or move the file away, and give the command "
      "that measured it again"
    )
  del found["digests"]
  return found


def write_results(workdir: str | pathlib.Path, results: Mapping[str, Any]) -> None:
  """Writes results.json, with the digests by which what is changed later is known.

  What was changed in the file that is there is lost, which a line says.
  """
  path = _path(workdir)
  if path.exists():
    with contextlib.suppress(InputError):
      if edited := _edited(read_json(path, remedy="")):
        _log.warning("%s: what was changed in %s is written anew", path, ", ".join(edited))
  _write(path, results)


def _write(path: pathlib.Path, results: Mapping[str, Any]) -> None:
  digests = {key: digest_of(value) for key, value in results.items() if key != "digests"}
  write_json(path, {**results, "digests": digests})


def _path(workdir: str | pathlib.Path) -> pathlib.Path:
  return pathlib.Path(workdir) / "results.json"


def _edited(found: Mapping[str, Any]) -> list[str]:
  """The entries that are not as they were written."""
  digests = found.get("digests")
  digests = digests if isinstance(digests, Mapping) else {}
  entries = ((key, value) for key, value in found.items() if key != "digests")
  return [key for key, value in entries if digests.get(key) != digest_of(value)]


def update_results(
  workdir: str | pathlib.Path,
  config: dict,
  command: str,
  records: Mapping[str, Callable[[Any], Any]],
  *,
  files: Mapping[str, Mapping[str, str]] | None = None,
  **fields: Any,
) -> dict:
  """Adds what a command found on a run's network to its results.json, atomically.

  Two commands that do so at once lose nothing of each other.

  Args:
    command: whose numbers these are: `environment` keeps one entry for each.
    records: by experiment, a function from the network's record so far (None: none) to the new one.
    files: by experiment, what belongs to that record; see `outputs`.
    fields: other top-level fields, such as `data`.
  """
  network, made_by = config["train"]["network"], environment()
  with one_at_a_time(_path(workdir)):  # What another command writes meanwhile would be lost.
    before = read_results(workdir)
    sections = {
      name: {**before.get(name, {}), network: change(before.get(name, {}).get(network))}
      for name, change in records.items()
    }
    known = before.get("files", {})
    owned = {n: {**known.get(n, {}), network: dict(new)} for n, new in (files or {}).items()}
    results = {
      **before,
      **header(config),
      **({"files": {**known, **owned}} if owned else {}),
      "environment": {**before.get("environment", {}), command: made_by},
      **fields,
      **sections,
    }
    _write(_path(workdir), results)
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
