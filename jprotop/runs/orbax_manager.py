"""Orbax as a run uses it: one process writes, at once, and a failure is told once."""

import contextlib
import logging
import pathlib
import shutil
import sys
import time
from collections.abc import Generator

import orbax.checkpoint as ocp

from jprotop.files import ensure_folder


def open_manager(directory: pathlib.Path, keep: int) -> ocp.CheckpointManager:
  """Of one process, which does not wait for others."""
  ensure_folder(directory)
  alone = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
  handlers = {
    "model": ocp.PyTreeCheckpointHandler(multiprocessing_options=alone),
    "optimizer": ocp.StandardCheckpointHandler(multiprocessing_options=alone),
    "info": ocp.JsonCheckpointHandler(multiprocessing_options=alone),
  }
  # Not in the background: what cannot be written would be noticed an epoch late, and two be lost.
  options = ocp.CheckpointManagerOptions(
    max_to_keep=keep, create=False, multiprocessing_options=alone, enable_async_checkpointing=False
  )
  return ocp.CheckpointManager(directory, options=options, item_handlers=handlers)


@contextlib.contextmanager
def said_once() -> Generator[None]:
  """What fails in the block is raised, and not told before in Orbax's log and by TensorStore's
  threads, which nobody else hears any more."""
  log = logging.getLogger("absl")
  before = log.level, sys.unraisablehook
  log.setLevel(logging.CRITICAL + 1)
  sys.unraisablehook = lambda _: None
  try:
    yield
  except Exception:
    time.sleep(0.5)  # Other arrays are still being written, and fail like the first.
    raise
  finally:
    log.setLevel(before[0])
    sys.unraisablehook = before[1]


def remove_unfinished(directory: pathlib.Path) -> None:
  """Removes checkpoints that were not written to their end; nobody else may be writing there."""
  for path in directory.glob("*.orbax-checkpoint-tmp*"):
    shutil.rmtree(path, ignore_errors=True)
