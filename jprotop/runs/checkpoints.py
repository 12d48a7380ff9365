"""Checkpoints with Orbax: network, optimiser state, provenance, and where the run stands."""

import contextlib
import dataclasses
import logging
import os
import pathlib
import shutil
import time
import warnings
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jprotop.errors import InputError
from jprotop.files import read_json
from jprotop.runs import orbax_manager, processes
from jprotop.runs.config import trained_part
from jprotop.runs.config_checks import check_stored
from jprotop.runs.config_keys import differences
from jprotop.runs.config_later import completed
from jprotop.runs.digests import digest_of_arrays
from jprotop.runs.sealed import digest_of

_log = logging.getLogger("jprotop")


@dataclasses.dataclass
class Position:
  """Where a run stands: everything but arrays that its continuation depends on.

  Attributes:
    phase, epoch: indices of the next epoch to run.
    epochs_done: over all phases; it numbers the checkpoints.
    history_rows: rows of history.jsonl that belong to this state.
    history_digest: names them.
    best_accuracy: of the last-layer epoch kept so far; -1: none yet.
  """

  phase: int = 0
  epoch: int = 0
  epochs_done: int = 0
  history_rows: int = 0
  history_digest: str = ""
  best_accuracy: float = -1.0


class Checkpoints:
  """The numbered checkpoints of one run; a new one appears under its name only when it is whole.

  They hold whole arrays, whatever devices these lay on, and a digest of them, by which what a disk
  has changed since is noticed when they are read. Of several processes the first writes and reads
  them; all call these methods, and get what it read.
  """

  def __init__(self, workdir: str | os.PathLike, *, keep: int = 2):
    self._directory = pathlib.Path(workdir).absolute() / "checkpoints"
    self._manager = (
      orbax_manager.open_manager(self._directory, keep) if processes.is_first() else None
    )
    self._digests: dict[str, str] = {}

  def _of_first(self) -> ocp.CheckpointManager:
    assert self._manager is not None, "the first process alone reads checkpoints"
    return self._manager

  def save(self, step: int, *, model: dict, optimizer: Any, info: dict) -> None:
    """Writes a checkpoint, which is on the disk when this returns.

    Args:
      model: {params, batch_stats, ...} of arrays.
      info: plain values, as JSON has them.

    Raises:
      InputError: it cannot be written; those before are kept.
    """
    if self._manager is None:
      return
    model, optimizer = jax.tree.map(np.asarray, (model, optimizer))
    digests = {
      "model": digest_of_arrays(model, digest_of(info)),
      "optimizer": digest_of_arrays(optimizer),
    }
    args = ocp.args.Composite(
      model=ocp.args.PyTreeSave(model),
      optimizer=ocp.args.StandardSave(optimizer),
      info=ocp.args.JsonSave({**info, "digests": digests}),
    )
    try:
      self._check_space(sum(leaf.nbytes for leaf in jax.tree.leaves((model, optimizer))))
      with orbax_manager.said_once():
        self._manager.save(step, args=args)
    except Exception as error:  # Orbax and TensorStore raise many kinds.
      orbax_manager.remove_failed(self._directory)
      raise InputError(
        f"cannot write a checkpoint in {self._directory}: {orbax_manager.reason(error)}; free "
        "some space, or make it writable, and run the same command again: it goes on from the last "
        "checkpoint"
      ) from error

  def _check_space(self, needed: int) -> None:
    """A disk that runs full under Orbax's hands is told of at length."""
    free = shutil.disk_usage(self._directory).free
    if free < needed:
      raise OSError(f"it needs {needed / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free there")

  def latest(self) -> int | None:
    return processes.from_first(lambda: self._of_first().latest_step())

  def restore(self, step: int) -> tuple[dict, dict]:
    """The `model` tree as host arrays, and `info`."""
    return processes.from_first(lambda: self._restore(step))

  def _restore(self, step: int) -> tuple[dict, dict]:
    try:
      with warnings.catch_warnings(), orbax_manager.said_once():
        warnings.simplefilter("ignore")
        tree = self._of_first().item_metadata(step)["model"]
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        restored = self._of_first().restore(
          step,
          args=ocp.args.Composite(
            model=ocp.args.PyTreeRestore(restore_args=as_numpy), info=ocp.args.JsonRestore()
          ),
        )
      model, info = restored["model"], dict(restored["info"])
      self._digests = dict(info.pop("digests", {}))
    except Exception as error:  # Orbax raises many kinds for a damaged file.
      raise self._unreadable(step, orbax_manager.reason(error)) from error
    if not self._digests:
      _log.warning(
        "checkpoint %d in %s has no digest, as those of earlier versions: were it damaged, that "
        "would not be seen",
        step,
        self._directory,
      )
    self._check_digest(step, "model", digest_of_arrays(model, digest_of(info)))
    return model, info

  def restore_optimizer(self, step: int, like: Any) -> Any:
    """The optimiser's state of the checkpoint that was restored, of the structure of `like`."""
    return processes.from_first(lambda: self._restore_optimizer(step, like))

  def _restore_optimizer(self, step: int, like: Any) -> Any:
    target = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
    try:
      with orbax_manager.said_once():
        restored = self._of_first().restore(
          step, args=ocp.args.Composite(optimizer=ocp.args.StandardRestore(target))
        )
    except Exception as error:
      raise self._unreadable(step, orbax_manager.reason(error)) from error
    self._check_digest(step, "optimizer", digest_of_arrays(restored["optimizer"]))
    return restored["optimizer"]

  def _check_digest(self, step: int, item: str, found: str) -> None:
    if self._digests and self._digests.get(item) != found:
      raise self._unreadable(step, "it is damaged: it does not hold what was written")

  def _unreadable(self, step: int, why: str) -> InputError:
    return InputError(
      f"checkpoint {step} in {self._directory} cannot be read ({why}); delete its folder to go "
      "back to the one before"
    )

  def close(self) -> None:
    if self._manager is not None:
      self._manager.close()


# Of a reader, each while a training beside it writes one more.
_TRIES = 10


def read_latest(workdir: pathlib.Path) -> tuple[dict, dict] | None:
  """`model` and `info` of a run's latest checkpoint; None: it has none yet.

  Where a training goes on beside, that one may be removed while it is read; then the one that is
  the latest by now is read.
  """
  return processes.from_first(lambda: _read_latest(workdir / "checkpoints"))


def _read_latest(directory: pathlib.Path) -> tuple[dict, dict] | None:
  failed = None
  for _ in range(_TRIES):
    step = _latest_in(directory)
    if step is None:
      return None
    try:
      with contextlib.closing(Checkpoints(directory.parent)) as store:
        return store.restore(step)
    except Exception as error:  # Orbax looks at all checkpoints, also those that go just then.
      if isinstance(error, InputError) and _latest_in(directory) == step:
        raise
      failed = error
    time.sleep(0.1)
  raise InputError(
    f"the checkpoints in {directory} change while they are read ({failed}); wait until the "
    "training that writes them has ended"
  ) from failed


def _latest_in(directory: pathlib.Path) -> int | None:
  return max((int(p.name) for p in directory.glob("*") if p.name.isdigit()), default=None)


def read_config(workdir: pathlib.Path) -> dict:
  """The config of the run in a workdir, as the first process finds it there."""
  return processes.from_first(lambda: _read_config(workdir))


def _read_config(workdir: pathlib.Path) -> dict:
  path = workdir / "config.json"
  if not path.exists():
    raise InputError(
      f"{workdir} holds no run (no config.json); train one with jprotop train --config=demo "
      f"--workdir={workdir}"
    )
  config = read_json(path, remedy="bring it back, or train in another --workdir")
  if "variant" in config and "train" not in config:
    raise InputError(
      f"{workdir} holds a run of jprotop 0.1, whose config has another layout; open it with "
      "jprotop 0.1, or train it again with this version, in another --workdir"
    )
  config = completed(config)
  check_stored(config, path)
  return config


def check_trained(workdir: pathlib.Path, config: dict, info: dict) -> None:
  """InputError where the config of a run is not the one that its checkpoint was trained with.

  Shapes may be the same, and numbers others: those of another similarity, for example.

  Args:
    info: of the checkpoint; that of an earlier version does not tell.
  """
  if "trained" not in info:
    return
  there = trained_part(completed({"train": info["trained"]}))
  if changes := differences(there, trained_part(config), "train."):
    raise InputError(
      f"{workdir} holds weights that were trained with another config; was config.json edited? "
      "Make these as they were there\n  " + "\n  ".join(changes)
    )
