"""Orbax as a run uses it: one process writes, at once, and a failure is told once."""

import contextlib
import logging
import pathlib
import shutil
import sys
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
  """What fails in the block is raised, and not told before in Orbax's log, or after it by threads."""
  log = logging.getLogger("absl")
  level = log.level
  log.setLevel(logging.CRITICAL + 1)
  try:
    yield
  except Exception:
    _ignore_late_comers()
    raise
  finally:
    log.setLevel(level)


def _ignore_late_comers() -> None:
  """Where an array cannot be read or written, TensorStore's threads are still at others, and come
  to an event loop that has ended with the first, however much later."""
  hook = sys.unraisablehook
  if getattr(hook, "of_jprotop", False):
    return

  def but_them(unraisable: sys.UnraisableHookArgs) -> None:
    if "Event loop is closed" not in str(unraisable.exc_value):
      hook(unraisable)

  but_them.of_jprotop = True
  sys.unraisablehook = but_them


def remove_unfinished(directory: pathlib.Path) -> None:
  """Removes checkpoints that were not written to their end; nobody else may be writing there."""
  for path in directory.glob("*.orbax-checkpoint-tmp*"):
    shutil.rmtree(path, ignore_errors=True)
