"""How the first versions of PyTorch pickled, rebuilt from what torch.load still reads.

The classes stand for objects of theirs, and say how those were reduced. Tensors are written as
parts of storages, as tensors of this version have no storages that begin inside of others.
"""

import collections
import copyreg
import io
import pickle
import struct

import torch
import torch_archives
from torch.nn.backends import thnn


class Storage:
  """A row of numbers, as a one-dimensional tensor; a part of storage `root` from `offset` on."""

  def __init__(self, row, key, root=None, offset=0):
    self.row, self.key, self.root, self.offset = row, key, root, offset
    name = str(row.dtype).removeprefix("torch.").removesuffix("32")
    self.kind = {"int64": "Long", "float64": "Double", "float16": "Half"}.get(name, name.title())

  def part(self, key, offset, numel):
    return Storage(self.row[offset : offset + numel], key, self, offset)


class Tensor:
  """A view of a storage; what state dicts before torch 0.4 had of buffers."""

  def __init__(self, storage, offset, size, stride):
    self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

  def __reduce__(self):
    return torch._utils._rebuild_tensor, (self.storage, self.offset, self.size, self.stride)

  def value(self):
    return torch.as_strided(self.storage.row.clone(), self.size, self.stride, self.offset)


class Parameter:
  """Of torch 0.1.10 to 0.4.0: called with its tensor, then given the rest."""

  def __init__(self, tensor):
    self.tensor = tensor

  def __reduce__(self):
    return torch.nn.Parameter, (self.tensor,), (True, False, collections.OrderedDict())

  def value(self):
    return self.tensor.value()


class LateParameter(Parameter):
  """Of torch 0.1.6, as in torchvision's ResNets: made empty, its tensor in what it is given."""

  __class__ = property(lambda self: torch.nn.Parameter)  # else pickle sees that it is none

  def __reduce__(self):
    state = (self.tensor, None, collections.OrderedDict(), True, False)
    return copyreg.__newobj__, (torch.nn.Parameter,), state


class Pairs:
  """An OrderedDict of Python 2, whose items are one argument, a list of lists."""

  def __init__(self, items):
    self.items = [list(item) for item in items.items()]

  def __reduce__(self):
    return collections.OrderedDict, (self.items,)


class Backend:
  """What every layer of torch 1.1 and before has as `_backend`."""

  def __reduce__(self):
    return thnn._get_thnn_function_backend, ()


class _Pickler(pickle.Pickler):
  def __init__(self, file, persistent_id):
    super().__init__(file, 2)
    self.persistent_id = persistent_id


def _pickled(value, persistent_id):
  out = io.BytesIO()
  _Pickler(out, persistent_id).dump(value)
  return out.getvalue()


def _numbers(row):
  return row.contiguous().view(torch.uint8).numpy().tobytes()


def row_file(value, cuda=False):
  """A file as of torch 0.1.10 to 1.5, its storages on a GPU if wished."""
  roots, layers = {}, set()

  def persistent_id(item):
    if isinstance(item, type) and issubclass(item, torch.nn.Module) and item not in layers:
      layers.add(item)
      return "module", item, "layers.py", "class Layer(Module):\n  pass\n"
    if not isinstance(item, Storage):
      return None
    root = item.root or item
    roots[str(root.key)] = root
    part = (str(item.key), item.offset, len(item.row)) if item.root else None
    kind = getattr(torch, f"{item.kind}Storage")
    return "storage", kind, str(root.key), "cuda:0" if cuda else "cpu", len(root.row), part

  content = _pickled(value, persistent_id)
  if cuda:
    content = content.replace(b"ctorch\nFloatStorage", b"ctorch.cuda\nFloatStorage")
  storages = {key: (len(root.row), _numbers(root.row)) for key, root in sorted(roots.items())}
  return torch_archives.row_file(content, storages)


def tar_file(value):
  """A file as of torch 0.1.6 and before."""
  tensors = {}

  def persistent_id(item):
    if not isinstance(item, Tensor):
      return None
    key = 7_000_000 + len(tensors)
    tensors.setdefault(id(item), (key, item))
    return str(tensors[id(item)][0])

  content = _pickled(value, persistent_id)
  listed = list(tensors.values())
  storages = {tensor.storage.key: tensor.storage for _, tensor in listed}
  parts = [storage for storage in storages.values() if storage.root]
  roots = {root.key: root for root in (storage.root or storage for storage in storages.values())}
  views = [(part.key, part.root.key, part.offset, len(part.row)) for part in parts]
  return torch_archives.tar_file(
    content,
    pickle.dumps(len(listed), 2) + b"".join(_tar_tensor(*entry) for entry in listed),
    pickle.dumps(len(roots), 2)
    + b"".join(_tar_storage(root) for root in roots.values())
    + pickle.dumps(views, 2),
  )


def _tar_tensor(key, tensor):
  size, stride = tensor.size, tensor.stride
  head = struct.pack("<2sBiBi", b"\x80\x02", ord("J"), key, ord("J"), tensor.storage.key)
  head += f"ctorch\n{tensor.storage.kind}Tensor\n".encode() + b"\x87."
  # Of the eight bytes of the number of dimensions only four are meant.
  numbers = (*size, *stride, tensor.offset)
  return head + struct.pack(f"<iI{len(numbers)}q", len(size), 0xDEADBEEF, *numbers)


def _tar_storage(storage):
  head = struct.pack("<2sBi", b"\x80\x02", ord("J"), storage.key) + b"X\x03\x00\x00\x00cpu"
  head += f"ctorch\n{storage.kind}Storage\n".encode() + b"\x87."
  return head + struct.pack("<q", len(storage.row)) + _numbers(storage.row)
