"""Writing files so that a killed program never leaves half of one."""

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import pathlib
import shutil
import time
import uuid
from collections.abc import Callable, Generator
from typing import IO, Any

from jprotop.errors import InputError, excerpt

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


def user_path(text: str | os.PathLike) -> pathlib.Path:
  """A path as a user writes it, ~ for a home.

  Raises:
    InputError: ~NAME of nobody, or what can be no path.
  """
  try:
    path = pathlib.Path(text).expanduser()
  except RuntimeError as error:
    raise InputError(f"{excerpt(str(text))!r} is no path: {error}; write it out") from error
  if "\0" in str(path) or any(len(os.fsencode(part)) > 255 for part in path.parts):
    raise InputError(
      f"{excerpt(str(text))!r} is no path: a name has at most 255 letters, and no zero byte"
    )
  return path


def check_regular(path: pathlib.Path) -> None:
  """InputError unless a path is a file: to read a pipe or a device may never end."""
  if not path.is_file():
    why = "is a folder, a pipe or a device" if path.exists() else "does not exist"
    raise InputError(f"{path} {why}; give a file")


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Generator[None]:
  """What the system says of a file that the block cannot write is an InputError."""
  try:
    yield
  except OSError as error:
    # NumPy says in words alone that only a part was written.
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, None)
    remedy = "free some space, or choose another place" if full else "choose another place"
    raise InputError(f"cannot write {path}: {error.strerror or error}; {remedy}") from error


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Generator[pathlib.Path]:
  """A temporary path beside `path`, renamed onto it if the block ends well, else removed.

  The block makes a file or a folder there.
  The temporary name keeps the suffix, which some writers look at.

  Raises:
    InputError: the disk is full, or the place cannot be written.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}")
  try:
    with writing(path):
      path.parent.mkdir(parents=True, exist_ok=True)
      yield temporary
      os.replace(temporary, path)
  finally:
    if temporary.is_dir():
      shutil.rmtree(temporary, ignore_errors=True)
    with contextlib.suppress(OSError):  # Mostly it is gone; what cannot be removed is no new error.
      temporary.unlink()


def remove_orphans(path: str | os.PathLike, *, seconds: float = 3600) -> None:
  """Removes temporary files and folders for `path` unchanged for so long, which a killed program
  left there."""
  path = pathlib.Path(path)
  for orphan in path.parent.glob(f".{path.stem}-????????{path.suffix}"):
    with contextlib.suppress(OSError):  # Another program may be faster.
      if orphan.stat().st_mtime < time.time() - seconds:
        shutil.rmtree(orphan) if orphan.is_dir() else orphan.unlink()


@contextlib.contextmanager
def one_at_a_time(path: str | os.PathLike) -> Generator[None]:
  """Programs enter the block for `path`, a file or a folder to be, one after another.

  So what several of them need is made by the first, and found by the others, who look for it again
  inside; and who reads a file to write it anew loses nothing that another wrote meanwhile. Who
  waits says so. The system lets go of a killed program's lock, also on another machine that shares
  the disk (flock, which NFS and Lustre pass on). They do not wait where the disk cannot lock files,
  or is there only to be read.
  """
  path = pathlib.Path(path)
  place = path.with_name(f".{path.name}.lock")
  with contextlib.ExitStack() as stack:
    with contextlib.suppress(OSError):
      path.parent.mkdir(parents=True, exist_ok=True)
      _take(stack, place, path)
    yield


def make_once(path: pathlib.Path, fault: Callable[[], str], make: Callable[[], None]) -> None:
  """Makes a file or folder that several programs need, unless it is there and sound.

  One program does, the others wait. What is damaged is removed first, with a line that says so.

  Args:
    fault: what is wrong with it, in words that follow its name; "": nothing.
    make: writes it, atomically.
  """
  if not fault():
    return
  with one_at_a_time(path):
    found = fault()
    if not found:
      return  # Another program was faster.
    remove_orphans(path)
    if path.exists():
      _log.warning("%s %s; it is made anew", path, found)
      with writing(path):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    make()


def _take(
  stack: contextlib.ExitStack, place: pathlib.Path, path: pathlib.Path, *, wait: bool = True
) -> None:
  """Takes the lock file at `place` for `path`, until the stack is left; see `_holds`."""
  while not _holds(stack.enter_context(_open_lock(place)), place, path, wait=wait):
    pass  # Whoever had it has removed it.
  stack.callback(_remove, place)


def _open_lock(place: pathlib.Path) -> IO:
  try:
    return open(place, "a")
  except PermissionError:  # Another user's, in a cache that several share.
    return open(place)


def _remove(place: pathlib.Path) -> None:
  with contextlib.suppress(OSError):
    place.unlink()


@contextlib.contextmanager
def held(folder: pathlib.Path, *, by: str = "command", wait: bool = False) -> Generator[None]:
  """Holds a folder for what one program writes there; one that it made and leaves empty goes away.

  Where the disk cannot lock files, nobody is told.

  Args:
    by: what the program is. A training and a command that measures hold one folder at a time each:
      they write different files.
    wait: whether to wait for another program that holds the folder.

  Raises:
    InputError: another one holds it.
  """
  is_new = not folder.exists()
  ensure_folder(folder)
  with contextlib.ExitStack() as stack:
    if is_new:
      stack.callback(remove_if_empty, folder)
    try:
      _take(stack, folder / f".{by}", folder, wait=wait)
    except BlockingIOError as error:
      raise InputError(
        f"another {by} is writing into {folder}; wait until it has ended, or choose another folder"
      ) from error
    except OSError:
      pass
    yield


def remove_if_empty(folder: pathlib.Path) -> None:
  """Removes a folder in which nothing is."""
  with contextlib.suppress(OSError):
    folder.rmdir()


def _holds(lock: IO, place: pathlib.Path, path: pathlib.Path, *, wait: bool = True) -> bool:
  """Takes the lock for `path`; whether its file is still the one at its place.

  Raises:
    BlockingIOError: another program has it, and is not waited for.
  """
  start, said = time.monotonic(), False
  while True:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      break
    except BlockingIOError:
      if not wait:
        raise
      if not said and time.monotonic() > start + _PATIENCE:
        _log.info("waiting for another program that is at work on %s", path)
        said = True
      time.sleep(0.05)
  try:
    return os.path.samestat(os.fstat(lock.fileno()), place.stat())
  except FileNotFoundError:
    return False


def sha256_of(path: str | os.PathLike) -> str:
  """The SHA-256 hash of a file, in hexadecimal digits."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes JSON atomically, indented, floats as they are; NaN and infinity are refused."""
  try:
    text = json.dumps(value, indent=2, allow_nan=False)
  except ValueError as error:
    raise InputError(f"{path} would hold a number that is not finite; give finite ones") from error
  write_text(path, text + "\n")


def read_json(path: str | os.PathLike, *, remedy: str) -> dict:
  """The object in a JSON file.

  Args:
    remedy: what to do where it cannot be had; it ends the message.

  Raises:
    InputError: the file cannot be read, is not JSON, or holds no object.
  """
  try:
    value = json.loads(pathlib.Path(path).read_text("utf-8"))
  except OSError as error:
    raise InputError(f"{path} cannot be read ({error.strerror or error}); {remedy}") from error
  except (ValueError, RecursionError) as error:
    raise InputError(f"{path} is not JSON ({error}); {remedy}") from error
  if not isinstance(value, dict):
    raise InputError(f"{path} does not hold what jprotop writes there; {remedy}")
  return value


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a text file atomically, in UTF-8."""
  with atomic_path(path) as temporary:
    temporary.write_text(text, "utf-8")
