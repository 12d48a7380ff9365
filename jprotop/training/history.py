"""history.jsonl: a row for all that an epoch found, as it is found."""

import json
import pathlib
from collections.abc import Iterable

from tqdm import tqdm

from jprotop.files import atomic_path


class History:
  """The history of a run.

  Attributes:
    num_rows: how many rows it has.
  """

  def __init__(self, workdir: pathlib.Path):
    self._path, self.num_rows = workdir / "history.jsonl", 0

  def lines(self) -> list[str]:
    return self._path.read_text().splitlines()

  def begin(self, lines: Iterable[str] = ()) -> None:
    """A new history; `lines` are those of an epoch that was done elsewhere."""
    lines = list(lines)
    with atomic_path(self._path) as temporary:
      temporary.write_text("".join(f"{line}\n" for line in lines))
    self.num_rows = len(lines)

  def cut(self, num_rows: int) -> None:
    """Keeps the first rows: those of an epoch that was not saved are dropped."""
    if self._path.exists():
      rows = self._path.read_text().splitlines(keepends=True)[:num_rows]
      with atomic_path(self._path) as temporary:
        temporary.write_text("".join(rows))
    self.num_rows = num_rows

  def add(self, *, phase: str, epoch: int, **row) -> None:
    """One more row, which is shown, too."""
    row = {"phase": phase, "epoch": epoch, **row}
    with open(self._path, "a") as file:
      file.write(json.dumps(row) + "\n")
    self.num_rows += 1
    shown = ", ".join(
      f"{key} {value:.4g}" for key, value in row.items() if key not in ("phase", "split", "epoch")
    )
    tqdm.write(f"  {phase:<10} epoch {epoch + 1:<3} {row.get('split', ''):<10} {shown}")
