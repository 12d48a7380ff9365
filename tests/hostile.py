"""Files that a reader is to refuse: in every form, and what their error must be like."""

import os
import pickle
import socket
import struct
import subprocess
import tracemalloc

import numpy as np
import pytest
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
  zip_file,
)

from jprotop.errors import InputError
from jprotop.torch_io import torch_files

DATA = np.arange(4, dtype=np.float32).tobytes()
LARGE = 2**27  # bytes, which is 128 MB


def in_all_forms(content, data=DATA):
  """A pickle's bytes as files of every form."""
  return {
    "zip": zip_file(content, {"0": data}),
    "row": row_file(content, {"0": (len(data) // 4, data)}),
    "tar": tar_file(content),
  }


def read(folder, content):
  path = folder / "file.pth"
  path.write_bytes(content)
  return torch_files.read(path)


def error_of(folder, content):
  """The message of the error that a file is, for which little memory must be enough."""
  tracemalloc.start()
  try:
    with pytest.raises(InputError) as caught:
      read(folder, content)
    assert tracemalloc.get_traced_memory()[1] - 2 * len(content) < LARGE
  finally:
    tracemalloc.stop()
  message = str(caught.value)
  assert "was not read, and nothing of it was run: " in message
  assert message.isprintable() and len(message) < 1500
  return message


# --- what asks for more than data


class Call:
  """Pickled as a call of a function, which unpickling would run."""

  def __init__(self, function, *arguments, state=None):
    self.reduced = (function, arguments, state) if state else (function, arguments)

  def __reduce__(self):
    return self.reduced


def stack_global(module, name):
  short = [b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)]
  return b"".join(short) + b"\x93"


SYSTEM, COMMAND = named("os.system"), plain("touch ran")
ATTACKS = {
  "pickled by Python": ("posix.system", pickle.dumps(Call(os.system, "touch ran"), 2)),
  "protocol 4": ("posix.system", pickle.dumps(Call(os.system, "touch ran"), 4)),
  "protocol 0": ("posix.system", pickle.dumps(Call(os.system, "touch ran"), 0)),
  "evaluated": ("builtins.eval", pickle.dumps(Call(eval, "open('ran', 'w')"), 4)),
  "evaluated in Python 2": ("__builtin__.eval", pickle.dumps(Call(eval, "open('ran', 'w')"), 2)),
  "executed": ("builtins.exec", pickle.dumps(Call(exec, "open('ran', 'w')"), 4)),
  "a process": ("subprocess.Popen", pickle.dumps(Call(subprocess.Popen, ["touch", "ran"]), 4)),
  "a connection": (
    "socket.create_connection",
    pickle.dumps(Call(socket.create_connection, ("localhost", 1)), 2),
  ),
  "GLOBAL alone": ("os.system", finished(SYSTEM)),
  "GLOBAL, dropped": ("os.system", finished(SYSTEM, b"0N")),
  "REDUCE": ("os.system", finished(SYSTEM, COMMAND, b"\x85R")),
  "STACK_GLOBAL": ("os.system", finished(stack_global("os", "system"), COMMAND, b"\x85R")),
  "STACK_GLOBAL of what is memorised": (
    "os.system",
    finished(b"\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93"),
  ),
  "INST": ("os.system", finished(b"(", COMMAND, b"ios\nsystem\n")),
  "OBJ": ("os.system", finished(b"(", SYSTEM, COMMAND, b"o")),
  "NEWOBJ": ("os.system", finished(SYSTEM, COMMAND, b"\x85\x81")),
  "NEWOBJ_EX": ("os.system", finished(SYSTEM, COMMAND, b"\x85}\x92")),
  "BUILD": ("evil.Evil", finished(named("evil.Evil"), b")\x81", dictionary(a=COMMAND), b"b")),
  "import": ("evil.anything", finished(named("evil.anything"))),
  "a dotted name": (
    "os.path.os.system",
    finished(b"\x80\x04", stack_global("os", "path.os.system")),
  ),
  "a dotted name behind a layer": (
    "torch.nn.modules.x.os.system",
    finished(stack_global("torch.nn.modules.x", "os.system")),
  ),
  "a layer's module": (
    "torch.nn.modules.x.os.system",
    finished(named("torch.nn.modules.x.os.system")),
  ),
  "a layer's attribute": (
    "torch.nn.modules.conv.Conv2d.forward",
    finished(stack_global("torch.nn.modules.conv", "Conv2d.forward")),
  ),
  "a network's name behind a module's": (
    "model.os.PPNet",
    finished(stack_global("model", "os.PPNet")),
  ),
  "a name with a space": ("os.path PPNet", finished(b"cos path\nPPNet\n")),
  "a name with a line's end": ("os?.PPNet", finished(stack_global("os\n", "PPNet"))),
  "a network's name": ("os.systemPPNet", finished(named("os.systemPPNet"))),
  "nothing but a dot": (".", finished(stack_global("", ""))),
  "torch.hub": ("torch.hub.load", finished(call("torch.hub.load", plain("someone/evil")))),
  "torch.load": ("torch.serialization.load", finished(call("torch.serialization.load"))),
  "numpy": (
    "numpy.core.multiarray._reconstruct",
    finished(call("numpy.core.multiarray._reconstruct", named("numpy.ndarray"))),
  ),
  "getattr": ("__builtin__.getattr", finished(call("__builtin__.getattr", named("torch.device")))),
  "import_module": ("importlib.import_module", finished(call("importlib.import_module"))),
  "a made object": (
    "os.system",
    finished(call("copy_reg._reconstructor", SYSTEM, named("__builtin__.object"), plain(None))),
  ),
  "in a key": ("os.system", finished(b"}", SYSTEM, plain(1), b"s")),
  "in a state dict": ("os.system", finished(dictionary(b=SYSTEM, a=tensor()))),
  "in a layer": ("os.system", finished(layer(hook=SYSTEM))),
  "in a persistent id": ("os.system", finished(items(plain("storage"), SYSTEM), b"Q")),
  "behind a value": ("os.system", finished(plain(1), b"0", SYSTEM)),
}


# --- what stands where a key must be, which is hashed


def deep(times):
  """A tuple in a tuple, so many times."""
  return b")" + b"\x85" * times


# A pair of a pair twice, 60 times: to hash it takes 2 ** 60 steps.
WIDE = b")" + b"q\x00h\x00\x86" * 60
FLOATS = named("torch.FloatStorage")


def row_with_keys(keys):
  return row_file(finished(dictionary(a=tensor())))[: -len(pickle.dumps([], 2))] + finished(keys)


def tensors_of(key, storage_key):
  head = finished(items(key, storage_key, named("torch.FloatTensor")))
  return finished(plain(1)) + head + struct.pack("<i4x3q", 1, 4, 1, 0)


def storages_of(key, views=b"]"):
  data = struct.pack("<q", 4) + DATA
  return finished(plain(1)) + finished(items(key, plain("cpu"), FLOATS)) + data + finished(views)


def view_of(*pieces):
  return b"](" + items(*pieces) + b"e"


GOOD_TENSORS, GOOD_STORAGES = tensors_of(plain("0"), plain("s")), storages_of(plain("s"))
TAR_PICKLE = finished(dictionary(a=plain("0") + b"Q"))


def keys_in_files(key):
  """Files in which a value stands where a key must be, by where it does."""
  zero, two = plain(0), plain(2)
  tars = {
    "tensor": {"tensors": tensors_of(key, plain("s"))},
    "storage of a tensor": {"tensors": tensors_of(plain("0"), key)},
    "storage": {"storages": storages_of(key)},
    "view": {"storages": storages_of(plain("s"), view_of(key, plain("s"), zero, two))},
    "root of a view": {"storages": storages_of(plain("s"), view_of(plain("v"), key, zero, two))},
    "count": {"tensors": finished(key)},
    "offset": {"storages": storages_of(plain("s"), view_of(plain("v"), plain("s"), key, two))},
  }
  members = {"tensors": GOOD_TENSORS, "storages": GOOD_STORAGES}
  files = {f"tar, {n}": tar_file(TAR_PICKLE, **{**members, **part}) for n, part in tars.items()}
  files |= {
    f"{form}, dict": content
    for form, content in in_all_forms(finished(b"}" + key + plain(0) + b"s")).items()
  }
  files["row, storages"] = row_with_keys(b"](" + key + b"e")
  return files
