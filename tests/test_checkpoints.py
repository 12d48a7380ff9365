"""Checkpoints: what a disk does to them is noticed, and who reads beside a writer gets one."""

import json
import os
import pathlib
import resource
import shutil

import jax
import numpy as np
import pytest

from jprotop import files
from jprotop.errors import InputError
from jprotop.runs import checkpoints
from jprotop.runs.checkpoints import Checkpoints, read_latest

INFO = {"class_names": ["auk", "bittern"], "position": {"epoch": 1}, "accuracy": 0.5}


def arrays(step, size=200):
  rng = np.random.default_rng(step)
  return {"params": {"w": rng.random((size, 5), np.float32)}, "step": np.array(step)}


def save(store, step, **changes):
  optimizer = {"present": np.array(True), "state": {"mu": np.full(50, float(step), np.float32)}}
  store.save(step, model=arrays(step), optimizer=optimizer, info=INFO, **changes)


@pytest.fixture
def folder(tmp_path):
  """A run's folder with checkpoints 1 and 2."""
  store = Checkpoints(tmp_path)
  save(store, 1)
  save(store, 2)
  store.close()
  return tmp_path


def restored(folder, step=2):
  """All of a checkpoint, as it is read."""
  store = Checkpoints(folder)
  model, info = store.restore(step)
  like = {"present": np.array(True), "state": {"mu": np.zeros(50, np.float32)}}
  optimizer = store.restore_optimizer(step, like)
  store.close()
  return {"model": model, "optimizer": optimizer, "info": info}


def same(a, b):
  leaves, others = jax.tree.leaves(a), jax.tree.leaves(b)
  return len(leaves) == len(others) and all(map(np.array_equal, leaves, others))


# Orbax forgets some of its coroutines where one of them fails.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("item", ["model", "optimizer", "info"])
def test_a_flipped_bit_gives_no_other_numbers(folder, item):
  whole, rng, refused = restored(folder), np.random.default_rng(0), 0
  files = [path for path in (folder / "checkpoints/2" / item).rglob("*") if path.is_file()]
  largest = sorted(files, key=lambda path: path.stat().st_size)[-2:]
  for path in largest * 6:
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(flipped)
    try:
      assert same(restored(folder), whole), path
    except InputError as error:
      assert "checkpoint 2 in" in str(error) and "delete its folder" in str(error)
      refused += 1
    path.write_bytes(content)
  assert refused
  assert same(restored(folder), whole)


def test_what_is_plain_in_a_checkpoint_is_held_against_its_digest_too(folder):
  path = folder / "checkpoints/2/info/metadata"
  info = json.loads(path.read_text())
  assert info["class_names"] == INFO["class_names"]
  path.write_text(json.dumps({**info, "class_names": ["bittern", "auk"]}))
  with pytest.raises(InputError, match=r"checkpoint 2 in .* is damaged"):
    read_latest(folder)
  del info["digests"]
  path.write_text(json.dumps(info))
  model, found = read_latest(folder)
  assert same(model, arrays(2)) and found == INFO


@pytest.mark.parametrize(
  ("name", "outcome"),
  [("_CHECKPOINT_METADATA", "healthy"), ("model/_METADATA", "told"), ("info/metadata", "told")],
)
def test_orbax_says_nothing_of_its_own(folder, name, outcome, caplog):
  (folder / "checkpoints/2" / name).write_bytes(b"junk")
  if outcome == "told":
    with pytest.raises(InputError, match=r"checkpoint 2 in .* cannot be read .*; delete"):
      read_latest(folder)
  else:
    assert same(read_latest(folder)[0], arrays(2))
  assert not [record for record in caplog.records if record.name == "absl"]


def test_that_a_checkpoint_has_no_digest_is_said(folder, caplog):
  path = folder / "checkpoints/2/info/metadata"
  path.write_text(json.dumps(INFO))
  read_latest(folder)
  assert "checkpoint 2 in" in caplog.text and "no digest" in caplog.text


# --- Disks that are full.


def test_a_checkpoint_that_has_no_room_is_not_begun(folder, monkeypatch):
  usage = shutil.disk_usage(folder)
  monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
  store = Checkpoints(folder)
  with pytest.raises(
    InputError, match=r"it needs 0\.0 MB, and 0\.0 MB are free .* free some space"
  ):
    save(store, 3)
  store.close()
  assert same(read_latest(folder)[0], arrays(2))


def test_a_save_that_fails_does_so_at_once_and_says_so_once(folder, capfd):
  """As on a disk that runs full: no file may have more than a few thousand bytes."""
  store, limits = Checkpoints(folder), resource.getrlimit(resource.RLIMIT_FSIZE)
  big = {"params": {name: arrays(3, 20_000)["params"]["w"] for name in "abcdef"}}
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    with pytest.raises(InputError, match=r"cannot write a checkpoint in .* File too large"):
      store.save(3, model=big, optimizer={"present": np.array(False)}, info=INFO)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  store.close()
  assert "Traceback" not in capfd.readouterr().err
  assert sorted(os.listdir(folder / "checkpoints")) == ["1", "2"]
  assert same(read_latest(folder)[0], arrays(2))


def test_a_file_of_which_the_disk_took_a_part_says_what_to_do(tmp_path):
  """NumPy says so without the number of the error."""
  with (
    pytest.raises(InputError, match=r"cannot write .*a\.npy: 9 requested .*; free some space"),
    files.atomic_path(tmp_path / "a.npy") as temporary,
  ):
    temporary.write_bytes(b"half")
    raise OSError("9 requested and 4 written")
  assert not list(tmp_path.iterdir())


# --- A reader beside a writer.


def test_a_checkpoint_that_is_rotated_away_while_it_is_read(folder, monkeypatch):
  original, writer = Checkpoints._restore, Checkpoints(folder)

  def overtaken(self, step):
    if step == 2:
      for newer in (3, 4):
        save(writer, newer)
    return original(self, step)

  monkeypatch.setattr(Checkpoints, "_restore", overtaken)
  assert same(read_latest(folder)[0], arrays(4))
  writer.close()


def test_a_checkpoint_that_goes_while_all_are_looked_at(folder, monkeypatch):
  original, looks = checkpoints.orbax_manager.open_manager, []

  def disturbed(directory: pathlib.Path, keep: int):
    looks.append(directory)
    if len(looks) == 1:
      raise FileNotFoundError(directory / "1" / "_CHECKPOINT_METADATA")
    return original(directory, keep)

  monkeypatch.setattr(checkpoints.orbax_manager, "open_manager", disturbed)
  assert same(read_latest(folder)[0], arrays(2))


def test_a_folder_without_checkpoints(tmp_path):
  assert read_latest(tmp_path) is None
