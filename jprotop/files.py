"""Writing files so that a killed program never leaves half of one."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import pathlib
import shutil
import time
import uuid
from collections.abc import Iterator
from typing import Any, TextIO

from jprotop.errors import InputError

_log = logging.getLogger("jprotop")

# Seconds of waiting for another program before a word is said.
_PATIENCE = 2.0


def ensure_folder(path: pathlib.Path) -> None:
  """Makes a folder that results will go to: before the work, not after it."""
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(
      f"cannot make the folder {path}: {error.strerror or error}; choose another place"
    ) from error


def check_writable(folder: pathlib.Path) -> None:
  """Raises InputError where nothing can be written into a folder, or it cannot be made.

  For the start of long work whose results will go there; the folder is not made.
  """
  there = folder.absolute()
  while not there.exists() and there != there.parent:
    there = there.parent
  if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
    return
  why = "may not be written" if there.is_dir() else "is no folder"
  raise InputError(f"cannot write into {folder}: {there} {why}; choose another place")


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """A temporary path beside `path`, renamed onto it if the block ends well, else removed.

  The block makes a file or a folder there.
  The temporary name keeps the suffix, which some writers look at.

  Raises:
    InputError: the disk is full, or the place cannot be written.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    yield temporary
    os.replace(temporary, path)
  except OSError as error:
    remedy = "free some space" if error.errno == errno.ENOSPC else "choose another place"
    raise InputError(f"cannot write {path}: {error.strerror or error}; {remedy}") from error
  finally:
    if temporary.is_dir():
      shutil.rmtree(temporary, ignore_errors=True)
    with contextlib.suppress(OSError):  # Mostly it is gone; what cannot be removed is no new error.
      temporary.unlink()


def remove_orphans(path: str | os.PathLike, *, seconds: float = 3600) -> None:
  """Removes temporary files for `path` unchanged for so long: a killed program left them there."""
  path = pathlib.Path(path)
  for orphan in path.parent.glob(f".{path.stem}-????????{path.suffix}"):
    with contextlib.suppress(OSError):  # Another program may be faster.
      if orphan.stat().st_mtime < time.time() - seconds:
        orphan.unlink()


@contextlib.contextmanager
def one_at_a_time(folder: pathlib.Path) -> Iterator[None]:
  """Programs enter the block one after another, on all machines that share the folder's disk.

  So what several of them need there is made by the first, and found by the others. They do not wait
  where the disk cannot lock files, or is there only to be read.
  """
  path = folder / ".lock"
  with contextlib.ExitStack() as stack:
    with contextlib.suppress(OSError):
      folder.mkdir(parents=True, exist_ok=True)
      while not _holds(stack.enter_context(open(path, "a")), path):
        pass  # Whoever had it has removed it.
      stack.callback(path.unlink, missing_ok=True)
    yield


def _holds(lock: TextIO, path: pathlib.Path) -> bool:
  """Waits for the lock; whether its file is still the one at `path`."""
  start, said = time.monotonic(), False
  while True:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      break
    except BlockingIOError:
      if not said and time.monotonic() > start + _PATIENCE:
        _log.info("waiting for another program that prepares what is needed in %s", path.parent)
        said = True
      time.sleep(0.05)
  try:
    return os.path.samestat(os.fstat(lock.fileno()), path.stat())
  except FileNotFoundError:
    return False


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes JSON atomically, indented, floats as they are; NaN and infinity are refused."""
  try:
    text = json.dumps(value, indent=2, allow_nan=False)
  except ValueError as error:
    raise InputError(f"{path} would hold a number that is not finite; give finite ones") from error
  write_text(path, text + "\n")


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a text file atomically, in UTF-8."""
  with atomic_path(path) as temporary:
    temporary.write_text(text, "utf-8")
