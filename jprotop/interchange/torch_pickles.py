"""What a PyTorch checkpoint's pickle may ask for: tensors, containers, and layers as stand-ins."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from jprotop.interchange.pickles import Name, Refused, StandIn

_DTYPES = {
  "Double": np.float64,
  "Float": np.float32,
  "Half": np.float16,
  "BFloat16": ml_dtypes.bfloat16,
  "Long": np.int64,
  "Int": np.int32,
  "Short": np.int16,
  "Char": np.int8,
  "Byte": np.uint8,
  "Bool": np.bool_,
}
# Layers of torch, and the classes that ProtoPNet, its kin and torchvision make networks of.
_LAYERS = ("torch.nn.",)
_NETWORKS = re.compile(
  r"([A-Za-z_]\w*\.)*"
  r"(PPNet|ProtoPNet|ResNet(_features)?|BasicBlock|Bottleneck|VGG(_features)?"
  r"|DenseNet(_features)?|_DenseLayer|_DenseBlock|_Transition)"
)
_INERT = {"torch.device", "torch.Size", "torch.float32", "torch.float16", "torch.strided"}


@dataclasses.dataclass(eq=False)
class Storage:
  """A row of numbers that tensors are views of; its data come after the pickle is accepted."""

  key: str
  dtype: np.dtype
  numel: int
  data: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
  storage: Storage
  offset: int
  size: tuple[int, ...]
  stride: tuple[int, ...]

  def array(self, largest: int) -> np.ndarray:
    """A view of the storage; none of more than `largest` bytes, however it repeats itself."""
    storage = self.storage
    last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride))
    empty = 0 in self.size
    if not empty and (
      last >= storage.numel or math.prod(self.size) * storage.dtype.itemsize > largest
    ):
      raise Refused(f"a tensor of shape {self.size} lies outside its {storage.numel} numbers")
    data = storage.data[:0] if empty else storage.data[self.offset :]
    strides = tuple(step * storage.dtype.itemsize for step in self.stride)
    return np.lib.stride_tricks.as_strided(data, self.size, strides, writeable=False)


@dataclasses.dataclass(frozen=True, eq=False)
class View:
  """A storage as a tensor names it: old files have storages that begin inside of another one."""

  storage: Storage
  offset: int


def find(name: str) -> Name | None:
  """What a name in a checkpoint's pickle stands for; None: it is refused."""
  if name in _BUILDERS:
    return Name(name, _BUILDERS[name])
  storage = re.fullmatch(r"torch\.(?:cuda\.)?(\w+)Storage", name)
  known = storage and storage[1] in _DTYPES
  layer = name.startswith(_LAYERS) and re.fullmatch(r"[\w.]+", name)
  if known or layer or name in _INERT or _NETWORKS.fullmatch(name):
    return Name(name, lambda *_: StandIn(name))
  return None


def _tensor(storage, offset, size, stride, *_) -> Tensor:
  whole = lambda values: all(type(v) is int and v >= 0 for v in values)  # noqa: E731
  if not isinstance(storage, View) or not (isinstance(size, tuple) and isinstance(stride, tuple)):
    raise Refused("a tensor that is not of a storage, a size and a stride")
  if not whole((offset, *size, *stride)) or len(size) != len(stride) or len(size) > 8:
    raise Refused("a tensor whose size or stride is not of whole numbers")
  return Tensor(storage.storage, storage.offset + offset, size, stride)


def _dictionary(pairs=()) -> dict:
  made: dict = {}
  for key, value in pairs:
    if not isinstance(key, str | int):
      raise Refused("it has keys that are neither texts nor numbers")
    made[key] = value
  return made


def _set(items=()) -> set:
  if not all(isinstance(item, str | int) for item in items):
    raise Refused("it has a set of what is neither texts nor numbers")
  return set(items)


def _first(value, *_):
  return value


def _new_object(kind, *_):
  """copyreg's old way to make an object of a class."""
  if not isinstance(kind, Name):
    raise Refused("an object of what is no class")
  return kind.build()


_BUILDERS: dict[str, Callable] = {
  "collections.OrderedDict": _dictionary,
  "builtins.set": _set,
  "__builtin__.set": _set,
  "copy_reg._reconstructor": _new_object,
  "copyreg._reconstructor": _new_object,
  "builtins.object": lambda: None,
  "__builtin__.object": lambda: None,
  "torch._utils._rebuild_tensor": _tensor,
  "torch._utils._rebuild_tensor_v2": _tensor,
  "torch._utils._rebuild_parameter": _first,
  "torch._utils._rebuild_parameter_with_state": _first,
}


class Storages:
  """The storages that a pickle refers to, each made once."""

  def __init__(self):
    self.by_key: dict[str, Storage] = {}

  def persistent(self, identity: Any) -> Any:
    """("storage", kind, key, place, numel[, view]), or ("module", class, file, source text)."""
    if isinstance(identity, tuple) and len(identity) == 4 and identity[0] == "module":
      return identity[1]
    try:
      word, kind, key, _, numel, *view = identity
      dtype = np.dtype(_DTYPES[re.fullmatch(r"torch\.(?:cuda\.)?(\w+)Storage", kind.name)[1]])
      known = word == "storage" and isinstance(key, str) and type(numel) is int and numel >= 0
    except (TypeError, ValueError, KeyError, AttributeError):
      known = False
    if not known:
      raise Refused("it refers to data outside of itself that is no storage of a known type")
    root = self.by_key.setdefault(key, Storage(key, dtype, numel))
    offset = 0
    if view and view[0] is not None:
      _, offset, _ = view[0]
    return View(root, offset)
