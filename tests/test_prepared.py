"""Prepared data sets: made once by whoever comes first, and made anew where they are damaged."""

import os
import subprocess
import sys

import miniature
import numpy as np
import pytest
from commands import ROOT

from jprotop.data import builders, listed
from jprotop.data.dataset import load_dataset
from jprotop.errors import InputError

TOY = {"num_classes": 2, "images_per_class": 3, "size": 48, "seed": 0}


def load(cache):
  """A data set whose splits are looked at in full, pictures too."""
  data = load_dataset("toybirds", image_size=8, cache=cache, toy=TOY, validation_share=0)
  return data, [data.train.crop(i).tobytes() for i in range(len(data.train))]


def folder_of(cache):
  (folder,) = (cache / "toybirds").glob("*/1.0.0")
  return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """(cache, data set, crops) as they should be."""
  cache = tmp_path_factory.mktemp("prepared")
  return cache, *load(cache)


# --- Two processes.

PREPARE = """
import logging, sys
from jprotop import files
from jprotop.data import dataset
logging.basicConfig(level="INFO")
files._PATIENCE = 0.0
print("ready", flush=True)
sys.stdin.readline()
toy = {"num_classes": 2, "images_per_class": 3, "size": 48, "seed": 0}
data = dataset.load_dataset("toybirds", image_size=8, cache=sys.argv[1], toy=toy)
data.train.pixels
print(data.identity, data.train.pixels.sum(), flush=True)
"""


def test_two_processes_on_an_empty_cache(tmp_path):
  pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
  begun = [
    subprocess.Popen([sys.executable, "-c", PREPARE, tmp_path], cwd=ROOT, text=True, **pipes)
    for _ in range(2)
  ]
  for process in begun:
    assert process.stdout.readline() == "ready\n"
  for process in begun:
    process.stdin.write("\n")
    process.stdin.flush()
  told = [process.communicate(timeout=120) for process in begun]
  assert [process.returncode for process in begun] == [0, 0], told
  (first, said), (second, also_said) = told
  assert first == second != ""
  assert (said + also_said).count("preparing toybirds (once)") == 1
  assert "waiting for another program" in said + also_said
  assert not list(tmp_path.rglob("*.lock"))


# --- Damage.

PICTURES = "toybirds-train.array_record-00000-of-00001"


def flip(content):
  middle = len(content) // 2
  return content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]


DAMAGES = {
  "one bit": flip,
  "cut off": lambda content: content[: len(content) // 2],
  "empty": lambda content: b"",
  "zeroed": lambda content: bytes(len(content)),
  "missing": lambda content: None,
}


def damage(path, kind):
  content = DAMAGES[kind](path.read_bytes())
  path.unlink() if content is None else path.write_bytes(content)


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", ["a.txt", "deep/b.bin", "files.json"])
def test_a_folder_is_held_against_its_list(kind, name, tmp_path):
  for at, content in {"a.txt": "some text", "deep/b.bin": b"some bytes"}.items():
    miniature.write(tmp_path / at, content)
  listed.write_list(tmp_path)
  assert not listed.fault(tmp_path, hashed=lambda name: True)
  damage(tmp_path / name, kind)
  assert listed.fault(tmp_path, hashed=lambda name: True)
  sizes_alone = listed.fault(tmp_path, hashed=lambda name: False)
  assert bool(sizes_alone) == (kind not in ("one bit", "zeroed") or name == "files.json")


@pytest.mark.parametrize(
  "content",
  ["{}", "[]", "null", '{"../x": 1}', '{"a": 1}', '{"a": {}}', '{"\\u0000": {}}', "[" * 100_000],
)
def test_a_list_that_is_none_is_no_proof(content, tmp_path):
  miniature.write(tmp_path / "a", "")
  (tmp_path / "files.json").write_text(content)
  for hashed in (True, False):
    assert listed.fault(tmp_path, hashed=lambda name, hashed=hashed: hashed)


@pytest.mark.parametrize(
  ("name", "kind"),
  [
    ("dataset_info.json", "cut off"),
    ("features.json", "one bit"),
    ("annotations-train.npz", "zeroed"),
    ("annotations-test.npz", "missing"),
    (PICTURES, "one bit"),
    (PICTURES, "cut off"),
  ],
)
def test_what_is_damaged_is_prepared_anew_and_a_line_says_so(name, kind, prepared, caplog):
  cache, data, crops = prepared
  damage(folder_of(cache) / name, kind)
  again, same = load(cache)
  assert again.identity == data.identity and same == crops
  np.testing.assert_array_equal(again.train.parts, data.train.parts)
  assert f"{folder_of(cache)} " in caplog.text and "made anew" in caplog.text
  caplog.clear()
  load(cache)
  assert "anew" not in caplog.text


def test_edited_labels_are_not_believed(prepared, caplog):
  cache, data, _ = prepared
  path = folder_of(cache) / "annotations-train.npz"
  columns = dict(np.load(path))
  np.savez(path, **{**columns, "label": columns["label"][::-1]})
  assert load(cache)[0].train.label.tolist() == data.train.label.tolist()
  assert "made anew" in caplog.text


def test_pictures_that_nobody_reads_are_not_hashed(prepared, caplog):
  """A gigabyte takes a second, which a command that has its pixel files need not wait for."""
  cache, _, crops = prepared
  path = folder_of(cache) / PICTURES
  path.write_bytes(flip(path.read_bytes()))
  opened = load_dataset("toybirds", image_size=8, cache=cache, toy=TOY, validation_share=0)
  assert "anew" not in caplog.text
  assert opened.train.crop(0).tobytes() == crops[0]
  assert "made anew" in caplog.text


def test_what_a_killed_program_left_is_removed(tmp_path, caplog):
  load(tmp_path)
  folder = folder_of(tmp_path)
  left = miniature.write(folder.parent / "incomplete.ABCDEF_1.0.0" / "half", "half")
  (folder / "files.json").unlink()  # as where it is killed just before the end
  load(tmp_path)
  assert not left.exists() and not left.parent.exists()
  assert "lacks files.json; it is made anew" in caplog.text


# --- A full disk.


def test_a_disk_that_runs_full_is_one_message_and_leaves_nothing(tmp_path, monkeypatch):
  """array_record's writer has no OSError."""

  def full(_):
    raise RuntimeError("write() failed: No space left on device; writing somewhere")

  monkeypatch.setattr(builders, "write", full)
  with pytest.raises(InputError, match=r"cannot prepare toybirds in .*No space.*; free some space"):
    load(tmp_path)
  assert not miniature.tree(tmp_path)


def test_annotations_on_a_disk_that_runs_full(tmp_path, monkeypatch):
  def full(*_, **__):
    raise OSError(28, os.strerror(28))

  monkeypatch.setattr(np, "savez", full)
  with pytest.raises(InputError, match=r"cannot write .*No space left.*free some space"):
    load(tmp_path)
  assert not miniature.tree(tmp_path)
