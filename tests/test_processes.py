"""What is done once where several programs, or processes of one, would do it."""

import pathlib
import subprocess
import sys
import threading

import pytest

from jprotop import files
from jprotop.errors import InputError
from jprotop.runs import processes


def test_one_process_keeps_to_itself(tmp_path):
  assert processes.is_first()
  assert processes.from_first(lambda: {"a": tmp_path}) == {"a": tmp_path}
  with pytest.raises(InputError, match="not there"):
    processes.from_first(missing)
  with processes.kept_by_first(tmp_path / "run") as folder:
    assert folder == tmp_path / "run"


def missing():
  raise InputError("it is not there")


# --- Programs that share a folder.

HOLD = """
import pathlib, sys
from jprotop import files
with files.one_at_a_time(pathlib.Path(sys.argv[1])):
  print("in", flush=True)
  sys.stdin.readline()
"""


def hold(folder: pathlib.Path):
  """A program that is in the block, until it is given a line or killed."""
  begun = subprocess.Popen(
    [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  )
  assert begun.stdout.readline() == "in\n"
  return begun


@pytest.mark.parametrize("end", ["leaves", "is killed"])
def test_programs_wait_for_each_other(tmp_path, monkeypatch, caplog, end):
  monkeypatch.setattr(files, "_PATIENCE", 0.0)
  entered = threading.Event()

  def enter():
    with files.one_at_a_time(tmp_path / "cache"):
      entered.set()

  with hold(tmp_path / "cache") as other, caplog.at_level("INFO", "jprotop"):
    waiting = threading.Thread(target=enter)
    waiting.start()
    assert not entered.wait(0.3)
    if end == "leaves":
      other.communicate("\n")
    else:
      other.kill()
    assert entered.wait(10)
    waiting.join()
  assert "waiting for another program" in caplog.text
  assert not list(tmp_path.iterdir())


def test_who_waits_for_a_held_folder_gets_it_when_it_is_free(tmp_path, monkeypatch, caplog):
  monkeypatch.setattr(files, "_PATIENCE", 0.0)
  entered = threading.Event()

  def enter():
    with files.held(tmp_path, wait=True):
      entered.set()

  with caplog.at_level("INFO", "jprotop"):
    waiting = threading.Thread(target=enter)
    with files.held(tmp_path):
      waiting.start()
      assert not entered.wait(0.3)
    assert entered.wait(10)
    waiting.join()
  assert "waiting for another program" in caplog.text


def test_an_error_in_the_block_lets_the_next_one_in(tmp_path):
  with pytest.raises(InputError), files.one_at_a_time(tmp_path / "a"):
    missing()
  with files.one_at_a_time(tmp_path / "a"):
    assert [path.name for path in tmp_path.iterdir()] == [".a.lock"]


def test_programs_for_other_things_do_not_wait(tmp_path):
  with files.one_at_a_time(tmp_path / "a"), files.one_at_a_time(tmp_path / "b"):
    assert len(list(tmp_path.iterdir())) == 2


def test_where_nothing_can_be_written_nobody_waits(tmp_path):
  (tmp_path / "file").write_text("no folder")
  entered = False
  with files.one_at_a_time(tmp_path / "file" / "a"):
    entered = True
  assert entered
