"""history.jsonl: a row for all that an epoch found, as it is found."""

import json
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from jprotop.errors import InputError
from jprotop.files import write_text, writing
from jprotop.runs.sealed import digest_of

_log = logging.getLogger("jprotop")

_REMEDY = (
  "bring the file back, or move it away: the run is then without the curves of its training and "
  "without what the push cost"
)


def read_history(workdir: str | pathlib.Path, position: Mapping[str, Any]) -> list[dict]:
  """The rows of a run's history that belong to its checkpoint.

  Args:
    position: the checkpoint's `position`, which knows how many there are.

  Raises:
    InputError: the file is damaged, or was edited.
  """
  return [json.loads(line) for line in _read_lines(pathlib.Path(workdir), position)]


def _read_lines(workdir: pathlib.Path, position: Mapping[str, Any]) -> list[str]:
  path, count = workdir / "history.jsonl", position["history_rows"]
  if not path.exists():
    if count:
      _log.warning("%s is gone, and with it the curves of that training", path)
    return []
  try:
    lines = path.read_text("utf-8").split("\n")[:-1][:count]
    rows = [json.loads(line) for line in lines]
  except (OSError, ValueError, RecursionError) as error:
    raise InputError(f"{path} is damaged ({error}); {_REMEDY}") from error
  # Those of earlier versions have no digest.
  known = position.get("history_digest") or digest_of(lines)
  if len(lines) < count or digest_of(lines) != known or not all(map(_is_row, rows)):
    raise InputError(f"{path} does not hold the rows that the training wrote; {_REMEDY}")
  return lines


def _is_row(row: Any) -> bool:
  return isinstance(row, dict) and {"phase", "epoch"} <= row.keys()


class History:
  """The history of a run that is being trained.

  Attributes:
    lines: its rows so far, as the file has them.
  """

  def __init__(self, workdir: pathlib.Path):
    self._path, self.lines = workdir / "history.jsonl", []

  def begin(self, lines: Sequence[str] = ()) -> None:
    """A new history; `lines` are those of epochs that were done elsewhere."""
    self.lines = list(lines)
    write_text(self._path, "".join(f"{line}\n" for line in self.lines))

  def take_up(self, position: Mapping[str, Any]) -> None:
    """Goes on from a checkpoint: rows of an epoch that was not saved are dropped."""
    self.lines = _read_lines(self._path.parent, position)
    if self._path.exists():
      self.begin(self.lines)

  def add(self, *, phase: str, epoch: int, **row: Any) -> None:
    """One more row, which is shown, too."""
    row = {"phase": phase, "epoch": epoch, **row}
    self.lines.append(json.dumps(row))
    with writing(self._path), open(self._path, "a", encoding="utf-8") as file:
      file.write(self.lines[-1] + "\n")
    shown = ", ".join(
      f"{key} {value:.4g}" for key, value in row.items() if key not in ("phase", "split", "epoch")
    )
    tqdm.write(f"  {phase:<10} epoch {epoch + 1:<3} {row.get('split', ''):<10} {shown}")
