"""Folders of the cache with a list of their files, by which damage is found before it is read."""

import json
import pathlib
from collections.abc import Callable, Mapping

from jprotop.files import sha256_of, write_json

_LIST = "files.json"


def write_list(folder: pathlib.Path) -> None:
  """Lists the files of a finished folder, below it too, with their sizes and SHA-256 hashes."""
  paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
  write_json(folder / _LIST, {p.relative_to(folder).as_posix(): _facts(p) for p in paths})


def fault(folder: pathlib.Path, *, hashed: Callable[[str], bool]) -> str:
  """Why a folder is not what its list says, in words that follow its name; "" where it is.

  Args:
    hashed: whether a file's hash is looked at, which takes a second a gigabyte, or its size alone.
  """
  try:
    listed = json.loads((folder / _LIST).read_text())
    if not isinstance(listed, Mapping) or not listed:
      return "has no list of its files"
    for name, facts in listed.items():
      path = folder / name
      same = _facts(path) == facts if hashed(name) else path.stat().st_size == facts["bytes"]
      if not same:
        return f"holds another {name} than was written there"
  except FileNotFoundError as error:
    return f"lacks {pathlib.PurePath(error.filename).name}"
  except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
    return f"cannot be read ({error})"
  return ""


def _facts(path: pathlib.Path) -> dict:
  return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
