"""Atomic files: all of it or nothing, and one clear error where a place cannot be written."""

import errno
import json
import os

import miniature
import pytest

from jprotop.errors import InputError
from jprotop.files import atomic_path, check_writable, write_json


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
