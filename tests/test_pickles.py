"""Hostile pickles: nothing of them runs, none ends the process, and each is one clear error."""

import os
import pathlib
import pickle
import socket
import struct
import subprocess
import sys

import pytest
from hostile import ATTACKS, DATA, SYSTEM, error_of, in_all_forms, read
from torch_archives import (
  call,
  dictionary,
  finished,
  items,
  layer,
  named,
  plain,
  row_file,
  tar_file,
  tensor,
)

from jprotop.torch_io import pickles

# --- what asks for more than data

EVIL = (
  "open('imported', 'w')\nclass Evil:\n  def __setstate__(self, state):\n    open('ran', 'w')\n"
)


@pytest.fixture
def watched(tmp_path, monkeypatch):
  """A folder that is the current one; afterwards nothing may have been run, imported or called."""
  calls = []
  (tmp_path / "modules").mkdir()
  (tmp_path / "modules" / "evil.py").write_text(EVIL)
  monkeypatch.syspath_prepend(tmp_path / "modules")
  monkeypatch.chdir(tmp_path)
  for module, name in [(os, "system"), (socket, "create_connection"), (subprocess, "Popen")]:
    monkeypatch.setattr(module, name, lambda *given, name=name: calls.append((name, given)))
  before = set(sys.modules)
  yield tmp_path
  assert not calls
  assert all(name.startswith("encodings.") for name in set(sys.modules) - before)
  assert {path.name for path in tmp_path.iterdir()} <= {"modules", "file.pth"}


def test_the_watch_sees_what_pickle_would_do(tmp_path):
  """What the attacks do to Python's own unpickler."""
  (tmp_path / "evil.py").write_text(EVIL)
  names = ["evaluated", "REDUCE", "NEWOBJ_EX", "BUILD"]
  for name in names:
    (tmp_path / name).write_bytes(ATTACKS[name][1])
  code = "import pickle, sys\npickle.loads(open(sys.argv[1], 'rb').read())"
  for name in ["evaluated", "REDUCE", "BUILD"]:
    subprocess.run([sys.executable, "-c", code, name], cwd=tmp_path, check=True)
    (tmp_path / "ran").unlink()
  assert (tmp_path / "imported").exists()


@pytest.mark.parametrize("form", ["zip", "row", "tar"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_names_that_are_not_allowed(watched, attack, form):
  name, content = ATTACKS[attack]
  assert f"it asks for {name}, which is not part" in error_of(watched, in_all_forms(content)[form])


def test_names_where_only_plain_data_belong(watched):
  """The old forms' other pickles may not even name what a network may."""
  content = finished(dictionary(a=tensor()))
  row, allowed = row_file(content, {"0": (4, DATA)}), finished(named("collections.OrderedDict"))
  heads = [pickle.dumps(1001, 2), pickle.dumps(["0"], 2)]
  assert all(row.count(head) == 1 for head in heads)
  files = [row.replace(head, allowed) for head in heads]
  files += [tar_file(finished(b"}"), **{name: allowed}) for name in ("tensors", "storages")]
  for file in files:
    assert "it asks for collections.OrderedDict, which" in error_of(watched, file)
  files = [
    tar_file(finished(b"}"), **{name: finished(b"K\x01") + finished(SYSTEM)})
    for name in ("tensors", "storages")
  ]
  for file in files:
    assert "it asks for os.system, which" in error_of(watched, file)


@pytest.mark.parametrize(
  "content",
  [
    finished(b"\x82\x01"),  # EXT1, of a registry that is not ours
    finished(b"P12\n"),  # PERSID
    finished(b"\x97"),  # NEXT_BUFFER
    finished(b"\x96\x01\0\0\0\0\0\0\0a"),  # BYTEARRAY8
    finished(plain("os.system"), b")R"),
    finished(dictionary(a=tensor()), b")R"),
    finished(b"N)\x81"),
    finished(named("torch.device"), b"NR"),
    finished(call("copy_reg._reconstructor", plain("os.system"))),
    finished(call("copy_reg._reconstructor", named("copy_reg._reconstructor"))),
    finished(call("torch._utils._rebuild_tensor_v2")),
    finished(call("collections.OrderedDict", plain(3), plain(4))),
    finished(plain("storage"), b"Q"),
    finished(items(plain("storage")), b"Q"),
    finished(items(plain("module"), SYSTEM[:0], plain(1), plain(2)), b"Q"),
    b"\x80\x02.",
    b"\x80\x02(.",
    b"\x80\x02N",
    b"",
  ],
)
def test_senseless_pickles(watched, content):
  for file in in_all_forms(content).values():
    error_of(watched, file)


# --- what costs more than it should


@pytest.fixture
def few_steps(monkeypatch):
  """An eighth of the steps that a pickle may take, since those take seconds."""
  monkeypatch.setattr(pickles, "_MAX_STEPS", pickles._MAX_STEPS // 8)


def test_copies_cost_what_they_copy(few_steps, tmp_path):
  """By reference a file of a megabyte could have a large list copied a million times."""
  many, often = 6_000, 2_500
  pairs = b"](" + b"K\x00K\x00\x86" * many + b"e"
  entries = b"}(" + b"".join(b"J" + struct.pack("<i", n) + b"N" for n in range(many)) + b"u"
  for content in [
    plain([])
    + pairs
    + b"q\x00"
    + (named("collections.OrderedDict") + b"q\x01h\x00\x85R")
    + b"h\x01h\x00\x85R" * often,
    entries + b"q\x00" + named("torch.device") + b"q\x01" + b"h\x01)Rh\x00b" * often,
    b"(" + b"N" * many + b"tq\x00" + named("torch.device") + b"q\x01" + b"h\x01h\x00R" * often,
  ]:
    assert "steps" in error_of(tmp_path, row_file(finished(content)))


def test_endless_pickles_end(few_steps, tmp_path):
  """With sets, of all that an opcode makes the largest."""
  assert "steps" in error_of(tmp_path, row_file(finished(b"\x8f" * 2**17)))


# --- depth

LEVELS = 150_000  # more than a stack of 8 MB has room for
DEEP = b")" + b"\x85" * LEVELS
SEQUENTIAL, GET, PUT = named("torch.nn.modules.container.Sequential"), b"j\0\1\0", b"r\0\1\0"


def layers_in_each_other(count, times=1):
  """A layer with a layer in it, and so on; each may have the next one several times."""
  parameters = plain("_parameters") + dictionary(a=tensor())
  content = SEQUENTIAL + PUT + b"\0" + b")\x81}" + parameters + b"sb" + PUT + b"\1"
  layers = b"".join(plain(str(number)) + GET + b"\1" for number in range(times))
  modules = plain("_modules") + b"}(" + layers + b"u"
  content += (b"0" + GET + b"\0)\x81}" + modules + b"sb" + PUT + b"\1") * count
  return finished(content)


NESTED = {
  "tuples": finished(b")" + b"\x85" * 500_000),
  "lists": finished(b"]" * LEVELS + b"a" * (LEVELS - 1)),
  "dicts": finished(b"}K\0" * LEVELS + b"N" + b"s" * LEVELS),
  "layers": layers_in_each_other(20_000),
  "a key": finished(b"}", DEEP, b"Ns"),
  "a set": finished(b"\x8f(", DEEP, b"\x90"),
  "a built set": finished(call("__builtin__.set", b"]" + DEEP + b"a")),
  "pairs": finished(call("collections.OrderedDict", b"]](" + DEEP + b"Nea")),
  "pairs as attributes": finished(SEQUENTIAL, b")\x81", b"]](" + DEEP + b"Nea", b"b"),
  "a persistent id": finished(DEEP, b"Q"),
  "a tensor": finished(tensor().replace(plain((2, 1)), DEEP)),
}
READ = """
import pathlib, sys
from jprotop.errors import InputError
from jprotop.torch_io import torch_files
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
  try:
    torch_files.read(path)
  except InputError as error:
    print(error)
"""


def test_depth_ends_no_process(tmp_path):
  """Python's C code overflows its stack where it follows such a nest: that would be a crash."""
  for number, content in enumerate(NESTED.values()):
    (tmp_path / f"{number:02}.pth").write_bytes(row_file(content, {"0": (4, DATA)}))
  root = pathlib.Path(__file__).parent.parent
  command = [sys.executable, "-c", READ, str(tmp_path)]
  done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
  assert (done.returncode, done.stderr) == (0, "")
  assert len(done.stdout.splitlines()) == len(NESTED)


@pytest.mark.parametrize(("count", "times"), [(3000, 1), (62, 2), (3, 100)])
def test_layers_in_each_other(tmp_path, count, times):
  file = in_all_forms(layers_in_each_other(count, times))["zip"]
  assert "as no network has" in error_of(tmp_path, file)


def test_layers_may_be_in_several_places(tmp_path):
  for form in ("zip", "row"):
    found = read(tmp_path, in_all_forms(layers_in_each_other(3, 2))[form]).state
    assert len(found) == 8 and "1.0.1.a" in found


def test_names_of_layers_do_not_grow_without_end(tmp_path):
  name = plain("x" * 2**20)
  inner = layer(parameters=dictionary(a=tensor()))
  for _ in range(5):
    inner = layer(modules=b"}(" + name + inner + b"u")
  assert "as no network has" in error_of(tmp_path, row_file(finished(inner), {"0": (4, DATA)}))
