"""What a measurement writes: kept apart until it is whole, and then known by its hashes.

So what lies in a folder is the work of one measurement, whose numbers stand in results.json beside
the hashes of its figures and arrays, and who shows them can tell whether they are still those.
"""

import contextlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Generator, Mapping
from typing import Any

from jprotop.errors import InputError
from jprotop.files import ensure_folder, sha256_of
from jprotop.runs.records import FILES, check_record

# {path below the folder, with slashes: hash}.
Files = dict[str, str]


def new_folder(folder: pathlib.Path, name: str) -> pathlib.Path:
  """Makes NAME-1 in a folder, or NAME-2, ..., the first that there is not yet."""
  number = 1
  while (path := folder / f"{name}-{number}").exists() or not _is_made(path):
    number += 1
  return path


def _is_made(path: pathlib.Path) -> bool:
  """Makes a folder; False where another program was faster."""
  try:
    path.mkdir()
  except FileExistsError:
    return False
  except OSError as error:
    raise InputError(
      f"cannot make the folder {path}: {error.strerror or error}; choose another place"
    ) from error
  return True


@contextlib.contextmanager
def apart(folder: pathlib.Path) -> Generator[pathlib.Path]:
  """A folder to write into inside of one that is held; it goes away with what is left there."""
  for orphan in folder.glob(".new-*"):  # Of a command that was killed: this one holds the folder.
    shutil.rmtree(orphan, ignore_errors=True)
  place = folder / f".new-{uuid.uuid4().hex[:8]}"
  ensure_folder(place)
  try:
    yield place
  finally:
    shutil.rmtree(place, ignore_errors=True)


def move(place: pathlib.Path, folder: pathlib.Path) -> Files:
  """Moves all files of one folder into another, over those that are there; returns their hashes."""
  paths = sorted(path for path in place.rglob("*") if path.is_file())
  written = {path.relative_to(place).as_posix(): _hash(path) for path in paths}
  for name in written:
    target = folder / name
    ensure_folder(target.parent)
    try:
      os.replace(place / name, target)
    except OSError as error:
      raise InputError(
        f"cannot write {target}: {error.strerror or error}; move away what is there"
      ) from error
  return written


def files_of(results: Mapping[str, Any], experiment: str, network: str) -> Files:
  """What results.json says that an experiment wrote about a network; nothing where it does not.

  Raises:
    InputError: what it says is none of files and hashes.
  """
  files = results.get("files", {})
  check_record(files, FILES, "results.json: files")
  return files.get(experiment, {}).get(network, {})


def is_unchanged(folder: pathlib.Path, name: str, digest: str) -> bool:
  """Whether a file is there, in the folder, with that hash."""
  inside = not os.path.isabs(name) and ".." not in pathlib.PurePosixPath(name).parts
  try:
    return inside and _hash(folder / name) == digest
  except OSError:
    return False


def changed(folder: pathlib.Path, files: Mapping[str, str]) -> list[str]:
  """Those that are not there any more, or hold something else."""
  return [name for name, digest in files.items() if not is_unchanged(folder, name, digest)]


def remove(folder: pathlib.Path, files: Mapping[str, str]) -> None:
  """Removes files, but for those that hold something else by now."""
  for name, digest in files.items():
    if is_unchanged(folder, name, digest):
      with contextlib.suppress(OSError):
        (folder / name).unlink()


def _hash(path: pathlib.Path) -> str:
  return sha256_of(path)[:32]
