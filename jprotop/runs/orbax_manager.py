"""Orbax as a run uses it: one process writes, at once, and a failure is told once."""

import contextlib
import functools
import logging
import os
import pathlib
import re
import shutil
import sys
import time
from collections.abc import Callable, Generator
from typing import Any

import orbax.checkpoint as ocp

from jprotop.errors import excerpt
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
  with said_once():
    return ocp.CheckpointManager(directory, options=options, item_handlers=handlers)


@contextlib.contextmanager
def said_once() -> Generator[None]:
  """What fails in the block is raised, and not told in Orbax's log before, nor by threads after."""
  if getattr(sys.unraisablehook, "func", None) is not _unless_late:
    sys.unraisablehook = functools.partial(_unless_late, sys.unraisablehook)
  log = logging.getLogger("absl")
  level = log.level
  log.setLevel(logging.CRITICAL + 1)
  try:
    yield
  finally:
    log.setLevel(level)


def _unless_late(hook: Callable[[Any], Any], unraisable: Any) -> None:
  """Where an array cannot be read or written, TensorStore's threads are still at others, and come
  to an event loop that has ended with the first, however much later."""
  if "Event loop is closed" not in str(unraisable.exc_value):
    hook(unraisable)


def remove_unfinished(directory: pathlib.Path) -> None:
  """Removes checkpoints that were not written to their end; nobody else may be writing there."""
  for path in directory.glob("*.orbax-checkpoint-tmp*"):
    shutil.rmtree(path, ignore_errors=True)


def remove_failed(directory: pathlib.Path) -> None:
  """Removes a checkpoint that just failed; TensorStore may still be writing some of its arrays."""
  for _ in range(20):
    remove_unfinished(directory)
    time.sleep(0.05)


def reason(error: Exception) -> str:
  """Why Orbax failed, in one line: of what TensorStore tells, what the system says of the file."""
  number = re.search(r"os_error_code='(\d+)'", str(error))
  whole, _, _ = str(error).partition(" [")  # what follows is how TensorStore had opened it
  return os.strerror(int(number[1])) if number else excerpt(whole)
