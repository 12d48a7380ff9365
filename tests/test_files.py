"""Atomic files: all of it or nothing, and one clear error where a place cannot be written."""

import errno
import fcntl
import json
import os

import miniature
import pytest

from jprotop.errors import InputError, excerpt
from jprotop.files import (
  atomic_path,
  check_regular,
  check_writable,
  held,
  make_once,
  read_json,
  user_path,
  write_json,
)


def test_a_file_appears_when_the_block_ends(tmp_path):
  path = tmp_path / "new" / "deep" / "a.txt"
  with atomic_path(path) as temporary:
    temporary.write_text("whole")
    assert not path.exists()
    assert temporary.suffix == ".txt"
  assert path.read_text() == "whole"
  assert len(miniature.tree(tmp_path)) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failing_block_leaves_the_old_file_and_nothing_else(error, tmp_path):
  path = miniature.write(tmp_path / "a.txt", "old")
  with pytest.raises(error), atomic_path(path) as temporary:
    temporary.write_text("half")
    raise error
  assert path.read_text() == "old"
  assert len(miniature.tree(tmp_path)) == 1


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
  with pytest.raises(ValueError, match="broken"), atomic_path(tmp_path / "folder") as temporary:
    miniature.write(temporary / "deep" / "a.txt", "half")
    raise ValueError("broken")
  assert not list(tmp_path.iterdir())
  with atomic_path(tmp_path / "folder") as temporary:
    miniature.write(temporary / "deep" / "a.txt", "whole")
  assert list(miniature.tree(tmp_path)) == ["folder/deep/a.txt"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
  place = miniature.write(tmp_path / "file", "not a folder")
  with (
    pytest.raises(InputError, match=r"cannot write .*file/a.txt: .*choose another place"),
    atomic_path(place / "a.txt") as temporary,
  ):
    temporary.write_text("never")
  assert place.read_text() == "not a folder"


def test_a_place_is_looked_at_before_the_work_and_not_made(tmp_path, monkeypatch):
  check_writable(tmp_path / "new" / "deep")
  assert not list(tmp_path.iterdir())
  place = miniature.write(tmp_path / "file", "not a folder")
  with pytest.raises(InputError, match=r"cannot write into .*file/a: .*file is no folder; choose"):
    check_writable(place / "a")
  monkeypatch.setattr(os, "access", lambda path, mode: False)
  with pytest.raises(InputError, match=r"cannot write into .*new: .* may not be written; choose"):
    check_writable(tmp_path / "new")


def test_a_home_is_written_out(monkeypatch):
  monkeypatch.setenv("HOME", "/somewhere")
  assert str(user_path("~/a/b")) == "/somewhere/a/b"
  assert str(user_path("a/~b")) == "a/~b"
  for text in ("~nosuchuser", "~nosuchuser/x", "a\0b", "x" * 256, f"a/{'é' * 200}/b"):
    with pytest.raises(InputError, match=r"is no path: "):
      user_path(text)


def test_what_is_no_file_is_told(tmp_path):
  check_regular(miniature.write(tmp_path / "file", "content"))
  os.mkfifo(tmp_path / "pipe")
  for name, words in (("", "a folder"), ("pipe", "a pipe"), ("none", "does not exist")):
    with pytest.raises(InputError, match=f"{words}.*; give a file"):
      check_regular(tmp_path / name)


@pytest.mark.parametrize(
  ("content", "words"),
  [
    ("{", "is not JSON"),
    ("[" * 100_000, "is not JSON"),
    ("[1]", "does not hold what"),
    (None, "read"),
  ],
)
def test_json_that_is_none(content, words, tmp_path):
  path = tmp_path / "a.json"
  path.mkdir() if content is None else path.write_text(content)
  with pytest.raises(InputError, match=rf"a\.json .*{words}.*; delete it$"):
    read_json(path, remedy="delete it")


def test_of_something_foreign_a_message_has_a_line_that_ends():
  nested = ()
  for _ in range(100_000):
    nested = (nested,)
  assert excerpt(nested) == "a value of type tuple"
  assert excerpt(10**5000).startswith("a value of type int that is too long")
  assert excerpt("a\nb\x1b[31m") == "a?b?[31m"
  assert excerpt("x" * 1000) == "x" * 200 + " ..."
  assert excerpt(ValueError("why")) == "why" and excerpt(0.5) == "0.5"


def test_a_folder_is_held_by_one_at_a_time_and_the_second_is_told(tmp_path):
  folder = tmp_path / "out"
  with held(folder):
    for _ in range(2):  # To be refused does not end what the first one holds.
      with (
        pytest.raises(InputError, match=r"another command is writing into .*out; wait"),
        held(folder),
      ):
        raise AssertionError("both are in")
    (folder / "a.txt").write_text("kept")
  with held(folder):
    pass
  assert list(miniature.tree(tmp_path)) == ["out/a.txt"]


def test_a_training_and_a_command_that_measures_it_may_be_in_one_folder(tmp_path):
  with held(tmp_path, by="training"), held(tmp_path):
    with pytest.raises(InputError, match="another training is writing"):
      held(tmp_path, by="training").__enter__()
    with pytest.raises(InputError, match="another command is writing"):
      held(tmp_path).__enter__()


def test_what_several_need_is_made_once_and_anew_where_it_is_damaged(tmp_path, caplog):
  path, made = tmp_path / "cache" / "a", []

  def fault():
    return "" if path.exists() and path.read_text() == "good" else "is damaged"

  def make():
    made.append(path.exists())
    path.write_text("good")

  for _ in range(2):
    make_once(path, fault, make)
  assert made == [False] and "damaged" not in caplog.text
  path.write_text("bad")
  make_once(path, fault, make)
  assert made == [False, False] and f"{path} is damaged; it is made anew" in caplog.text


def test_what_another_program_makes_meanwhile_is_not_made_again(tmp_path):
  faults = ["is not there", ""]
  make_once(tmp_path / "a", lambda: faults.pop(0), lambda: pytest.fail("made twice"))
  assert faults == []


def test_a_held_folder_that_was_made_for_nothing_goes_away(tmp_path):
  (tmp_path / "there").mkdir()
  for name in ("new", "there"):
    with pytest.raises(InputError, match="no image"), held(tmp_path / name):
      raise InputError("no image")
  assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_where_the_disk_cannot_lock_a_folder_is_used_all_the_same(tmp_path, monkeypatch):
  def refuse(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

  monkeypatch.setattr(fcntl, "flock", refuse)
  with held(tmp_path):
    (tmp_path / "a.txt").write_text("kept")
  assert (tmp_path / "a.txt").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_no_space_and_no_permission(number, tmp_path, monkeypatch):
  def refuse(*_):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(os, "replace", refuse)
  with pytest.raises(InputError, match=os.strerror(number)):
    write_json(tmp_path / "a.json", {})
  assert not miniature.tree(tmp_path)


def test_json_comes_back_and_nan_does_not_go_in(tmp_path):
  path = tmp_path / "a.json"
  value = {"b": [1, 2.5, None], "a": {"nested": 0.1}}
  write_json(path, value)
  assert json.loads(path.read_text()) == value
  assert path.read_text().endswith("\n")
  with pytest.raises(InputError, match="not finite"):
    write_json(path, {"bad": float("nan")})
  assert json.loads(path.read_text()) == value
