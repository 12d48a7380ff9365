"""history.jsonl: what a training wrote is read back, or the file is named."""

import dataclasses

import pytest

from jprotop.errors import InputError
from jprotop.runs.checkpoints import Position
from jprotop.runs.history import History, read_history
from jprotop.runs.sealed import digest_of


@pytest.fixture
def written(tmp_path):
  """(folder, position) of three rows, and half of one that no checkpoint knows."""
  history = History(tmp_path)
  history.begin()
  for epoch in range(3):
    history.add(phase="warm", epoch=epoch, split="train", accuracy=0.25 * epoch)
  position = Position(history_rows=3, history_digest=digest_of(history.lines))
  with open(tmp_path / "history.jsonl", "a") as file:
    file.write('{"phase": "wa')
  return tmp_path, dataclasses.asdict(position)


def test_rows_come_back_without_what_was_not_saved(written):
  folder, position = written
  rows = read_history(folder, position)
  assert [row["accuracy"] for row in rows] == [0.0, 0.25, 0.5]
  assert read_history(folder, {**position, "history_digest": ""}) == rows
  assert read_history(folder, {**position, "history_rows": 0, "history_digest": ""}) == []


@pytest.mark.parametrize(
  ("old", "new"),
  [
    (b'"warm"', b'"warm'),
    (b'{"phase": "warm", "epoch": 1', b'{"epoch": 1'),
    (b"train", b"tra\xffn"),
    (b"\n", b""),
    (b'{"phase": "warm", "epoch": 0, "split": "train", "accuracy": 0.0}\n', b""),
  ],
)
@pytest.mark.parametrize("of_earlier_version", [False, True])
def test_a_file_that_is_damaged_or_edited_is_named(written, old, new, of_earlier_version):
  folder, position = written
  path = folder / "history.jsonl"
  path.write_bytes(path.read_bytes().replace(old, new))
  if of_earlier_version:
    position["history_digest"] = ""
  for read in (lambda: read_history(folder, position), lambda: History(folder).take_up(position)):
    with pytest.raises(InputError, match=r"history\.jsonl .*; bring the file back, or move it"):
      read()


def test_an_edited_number_is_not_believed(written):
  folder, position = written
  path = folder / "history.jsonl"
  path.write_text(path.read_text().replace("0.25", "0.75"))
  with pytest.raises(InputError, match="does not hold the rows that the training wrote"):
    read_history(folder, position)


def test_a_file_that_was_moved_away_is_missed_and_the_training_goes_on(written, caplog):
  folder, position = written
  (folder / "history.jsonl").unlink()
  assert read_history(folder, position) == []
  assert "history.jsonl is gone" in caplog.text
  history = History(folder)
  history.take_up(position)
  assert not (folder / "history.jsonl").exists()
  history.add(phase="joint", epoch=3)
  now = {"history_rows": 1, "history_digest": digest_of(history.lines)}
  assert [row["phase"] for row in read_history(folder, now)] == ["joint"]


def test_a_row_that_cannot_be_written_is_one_message(tmp_path):
  (tmp_path / "history.jsonl").mkdir()
  with pytest.raises(InputError, match=r"cannot write .*history\.jsonl: Is a directory; choose"):
    History(tmp_path).add(phase="warm", epoch=0)
