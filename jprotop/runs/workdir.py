"""A run's folder is one training's at a time."""

import contextlib
import pathlib
from collections.abc import Generator

from jprotop.errors import InputError
from jprotop.files import held, remove_orphans, write_json
from jprotop.runs import orbax_manager, processes
from jprotop.runs.checkpoints import read_config
from jprotop.runs.config import trained_part
from jprotop.runs.config_keys import differences


@contextlib.contextmanager
def claim_workdir(workdir: pathlib.Path, config: dict) -> Generator[pathlib.Path]:
  """Holds a workdir for one training; writes config.json, or checks that its run is the same.

  Where the data lie, and how attacks are run later, does not change a training: those values may
  differ, and the new ones are kept.

  Yields:
    The folder to write in: the workdir, or, in other processes than the first, one that goes away.

  Raises:
    InputError: another training is in it, or it holds a run of another config; the differing
      keys are named.
  """
  with contextlib.ExitStack() as stack:
    processes.from_first(lambda: _claim(workdir, config, stack))
    yield stack.enter_context(processes.kept_by_first(workdir))


def _claim(workdir: pathlib.Path, config: dict, stack: contextlib.ExitStack) -> None:
  """Holds the folder first, so that a training that is refused changes nothing of the other's."""
  stack.enter_context(held(workdir, by="training"))
  _check_same_run(workdir, config)
  _remove_interrupted(workdir)
  write_json(workdir / "config.json", config)


def _remove_interrupted(workdir: pathlib.Path) -> None:
  """Removes what a training that was killed was just writing; its folder is held."""
  orbax_manager.remove_unfinished(workdir / "checkpoints")
  for name in ("config.json", "history.jsonl", "pretrained.npz"):
    remove_orphans(workdir / name, seconds=0)
  remove_orphans(workdir / "results.json")  # Other commands write it too.


def _check_same_run(workdir: pathlib.Path, config: dict) -> None:
  """InputError where a workdir holds another run than a config's."""
  path = workdir / "config.json"
  if path.exists():
    changes = differences(trained_part(read_config(workdir)), trained_part(config), "train.")
    if changes:
      raise InputError(
        f"{workdir} holds a run of another config; choose another --workdir, or delete it.\n  "
        + "\n  ".join(changes)
      )
  elif (workdir / "checkpoints").exists():
    raise InputError(f"{workdir} holds checkpoints but no config.json; choose another --workdir")
