"""Hostile checkpoints: PyTorch files that ask for what is not allowed, are damaged, or made up.

Nothing that a file names is run, imported, opened or connected to; each is arrays or one message.
"""

import os
import pathlib
import sys

import hostile
import numpy as np
from image_cases import damaged
from torch_archives import dictionary, finished, plain, tensor
from worker import outcome_of

from jprotop.torch_io import identify, torch_files

_GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "torch_files"
_SAMPLES = sorted(_GOLDEN.glob("*.pth"))
_OPCODES = (
  *(b"(", b")", b"}", b"]", b"t", b"R", b"b", b"Q", b"0", b"1", b"N", b"e", b"u", b"s", b"a", b"d"),
  *(b"\x85", b"\x86", b"\x87", b"\x81", b"\x88", b"\x89", b"\x8f", b"\x90", b"\x93", b"\x94"),
  *(b"K\x00", b"K\x01", b"q\x00", b"h\x00", b"q\x01", b"h\x01", b"cos\nsystem\n", b"X\x01\0\0\0a"),
  *(b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n", b"X\x07\0\0\0storage"),
  *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch.nn.modules.linear\nLinear\n", b"."),
)
_ACTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect")
# What the interpreter tells while a file is read, where that is more than to read it.
_acts: list[str] | None = None


def _watch(event: str, arguments: tuple) -> None:
  if _acts is None:
    return
  writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
  if event in _ACTS or writes:
    _acts.append(f"{event}{arguments!r}"[:200])


def prepare(folder: pathlib.Path) -> None:
  os.chdir(folder)  # where files would appear that a checkpoint has written
  for sample in _SAMPLES:  # So that all that reading needs is imported before it is watched.
    outcome_of(_read, sample, None)
  sys.addaudithook(_watch)


def case(number: int, folder: pathlib.Path) -> tuple[str, str] | None:
  global _acts
  rng = np.random.default_rng([number, 3])
  content, original = _KINDS[number % len(_KINDS)](rng)
  path = folder / "file.pth"
  path.write_bytes(content)
  before, _acts = set(sys.modules), []
  read = outcome_of(_read, path, original)
  done, _acts = _acts, None
  new = {name for name in set(sys.modules) - before if not name.startswith("encodings.")}
  files = {path.name for path in folder.iterdir()} - {"file.pth", "worker.log"}
  if done or new or files:
    return "executed", f"{done} {new} {files}"
  return read


def _read(path: pathlib.Path, original: pathlib.Path | None) -> tuple[str, str] | None:
  found = torch_files.read(path)
  result = _compared(found, original) if original else None
  if result is None:
    identify.identify(found)
  return result


def _compared(found: torch_files.TorchFile, original: pathlib.Path) -> tuple[str, str] | None:
  """A zip has checksums of all that it holds, so that its arrays are the same, or it is refused."""
  whole = torch_files.read(original).state
  same = {name: array.tobytes() for name, array in found.state.items()} == {
    name: array.tobytes() for name, array in whole.items()
  }
  return None if same else ("other", f"a damaged {original.name} gives other arrays")


def _attack(rng):
  content = list(hostile.ATTACKS.values())[rng.integers(len(hostile.ATTACKS))][1]
  if rng.random() < 0.5:  # Behind some plain data.
    content = content[:2] + plain(int(rng.integers(100))) + b"0" + content[2:]
  return _in_some_form(content, rng), None


def _damage(rng):
  sample = _SAMPLES[rng.integers(len(_SAMPLES))]
  content = sample.read_bytes()
  for _ in range(int(rng.integers(1, 3))):
    content = damaged(content, rng) or b"\0"
  return content, sample if sample.name.endswith(".zip.pth") else None


def _opcodes(rng):
  chosen = rng.integers(len(_OPCODES), size=int(rng.integers(1, 60)))
  return _in_some_form(b"\x80\x02" + b"".join(_OPCODES[i] for i in chosen) + b".", rng), None


def _keys(rng):
  keys = (hostile.deep(150_000), hostile.WIDE, b"]", b"}", hostile.deep(3), b"N")
  files = list(hostile.keys_in_files(keys[rng.integers(len(keys))]).values())
  return files[rng.integers(len(files))], None


def _tensors(rng):
  """Sizes, strides and offsets of any kind."""
  odd = (-1, 0, 1, 3, 2**31, 2**63, 2**79, -(2**63))

  def some():
    return tuple(odd[i] for i in rng.integers(len(odd), size=int(rng.integers(4))))

  made = tensor(
    numel=odd[rng.integers(len(odd))],
    offset=odd[rng.integers(len(odd))],
    size=some(),
    stride=some(),
  )
  return _in_some_form(finished(dictionary(a=made)), rng), None


def _in_some_form(content: bytes, rng: np.random.Generator) -> bytes:
  files = list(hostile.in_all_forms(content).values())
  return files[rng.integers(len(files))]


_KINDS = (_attack, _damage, _opcodes, _damage, _keys, _tensors)
