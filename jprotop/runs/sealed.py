"""JSON files whose numbers are believed only as they were written: each holds its own digest."""

import hashlib
import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from jprotop.errors import InputError
from jprotop.files import read_json, write_json

_log = logging.getLogger("jprotop")


def digest_of(value: Any) -> str:
  """Names a value as JSON has it: with another digit it has another name."""
  text = json.dumps(json.loads(json.dumps(value)), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_sealed(path: pathlib.Path, value: Mapping[str, Any]) -> None:
  """Writes an object with its digest beside its other keys."""
  write_json(path, {**value, "digest": digest_of(value)})


def read_sealed(path: pathlib.Path) -> dict | None:
  """The object in a file, without its digest; None where there is none, or not the one written.

  For what can be computed again: a line says where it has to be.
  """
  if not path.exists():
    return None
  try:
    value = read_json(path, remedy="it is measured again")
  except InputError as error:
    _log.warning("%s", error)
    return None
  if value.pop("digest", None) != digest_of(value):
    _log.warning(
      "%s was changed since jprotop wrote it, or is of an earlier version: its numbers are not "
      "used, and measured again",
      path,
    )
    return None
  return value
