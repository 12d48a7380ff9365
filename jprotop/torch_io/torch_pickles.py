"""What a PyTorch checkpoint's pickle may ask for: tensors, containers, and layers as stand-ins."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

from jprotop.torch_io.pickles import Name, Refused, StandIn, is_key, key_of

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
_STAND_INS = re.compile(
  r"torch\.nn\.(modules|parallel)\.\w+\._?[A-Z]\w*"
  r"|([A-Za-z_]\w*\.)*"
  r"(PPNet|ProtoPNet|ResNet(_features)?|BasicBlock|Bottleneck|VGG(_features)?"
  r"|DenseNet(_features)?|_DenseLayer|_DenseBlock|_Transition)"
)
_INERT = {
  *("torch.device", "torch.float32", "torch.float16", "torch.strided"),
  "torch.nn.backends.thnn._get_thnn_function_backend",  # in every layer of torch 1.1 and before
}
MAX_DIMENSIONS = 8


@dataclasses.dataclass(eq=False)
class Storage:
  """A row of numbers that tensors are views of; its data come after the pickle is accepted."""

  key: str
  dtype: np.dtype
  numel: int
  data: Shaped[np.ndarray, " n"] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class View:
  """A storage as a tensor names it: old files have storages that begin inside of another one."""

  storage: Storage
  offset: int


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
  """Numbers of a storage, by their places in it: no data yet."""

  storage: Storage
  offset: int
  size: tuple[int, ...]
  stride: tuple[int, ...]

  def array(self, largest: int) -> Shaped[np.ndarray, "..."]:
    """A read-only view of the storage's data.

    Raises:
      Refused: it reaches out of the storage, or repeats it to more than `largest` bytes.
    """
    dtype, numel = self.storage.dtype, self.storage.numel
    count = math.prod(n or 1 for n in self.size)
    if 0 not in self.size:
      last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride))
      if last >= numel:
        raise Refused(f"a tensor of shape {self.size} lies outside its {numel} numbers")
      if count * dtype.itemsize > largest:
        raise Refused(f"a tensor of shape {self.size} is larger than its file")
    elif count >= 2**48:
      raise Refused(f"a tensor has the shape {self.size}")
    # The steps of an empty tensor, and along a side of 1, mean nothing and may be anything.
    used = zip(self.size, self.stride)
    strides = [step * dtype.itemsize if n > 1 and 0 not in self.size else 0 for n, step in used]
    if self.storage.data is None:
      raise Refused(f"storage {self.storage.key} has no numbers")
    data = self.storage.data[min(self.offset, numel) :]
    return np.lib.stride_tricks.as_strided(data, self.size, strides, writeable=False)


def tensor(storage: Any, offset: Any, size: Any, stride: Any, *_) -> Tensor:
  """A tensor from what a file says of it, which may be anything."""
  if not isinstance(storage, View) or not (isinstance(size, tuple) and isinstance(stride, tuple)):
    raise Refused("a tensor that is not of a storage, a size and a stride")
  if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
    raise Refused(f"a tensor of {len(size)} dimensions with {len(stride)} strides")
  if not all(map(_is_count, (offset, *size, *stride))):
    raise Refused("a tensor whose offset, size or stride are not whole numbers of at least 0")
  return Tensor(storage.storage, storage.offset + offset, size, stride)


def _is_count(value: Any) -> bool:
  return type(value) is int and value >= 0


@dataclasses.dataclass(eq=False)
class _LateParameter(StandIn):
  """A parameter of the first versions of PyTorch, which comes before its tensor."""

  data: Any = None

  def set_state(self, state: Any) -> None:
    """(data, gradient, hooks, requires_grad, volatile)"""
    if isinstance(state, tuple) and len(state) == 5:
      self.data = state[0]


def tensor_of(value: Any) -> Tensor | None:
  """The tensor that a value is, or is a parameter of; None: it is none."""
  value = value.data if isinstance(value, _LateParameter) else value
  return value if isinstance(value, Tensor) else None


def find(name: str) -> Name | None:
  """What a name in a checkpoint's pickle stands for; None: it is refused."""
  if name in _BUILDERS:
    return Name(name, _BUILDERS[name])
  if name in _INERT or dtype_of(name) or _STAND_INS.fullmatch(name):
    return Name(name, lambda *_: StandIn(name))
  return None


def dtype_of(name: str) -> np.dtype | None:
  """The dtype of a class of storages or tensors, as torch.FloatStorage; None: it is none."""
  kind = re.fullmatch(r"torch\.(?:cuda\.)?(\w+)(?:Storage|Tensor)", name)
  return np.dtype(_DTYPES[kind[1]]) if kind and kind[1] in _DTYPES else None


def numbers_of(name: str) -> np.dtype:
  """The same of a class that must be one."""
  dtype = dtype_of(name)
  if dtype is None:
    raise Refused("it has tensors of numbers of an unknown kind")
  return dtype


def _dictionary(pairs=()) -> dict:
  made: dict = {}
  for key, value in pairs:
    made[key_of(key)] = value
  return made


def _set(items=()) -> set:
  if not all(map(is_key, items)):
    raise Refused("it has a set of what is neither texts nor numbers")
  return set(items)


def _first(value, *_):
  return value


def _parameter(data=None, *_):
  return _LateParameter("torch.nn.parameter.Parameter") if data is None else data


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
  "torch.Size": _first,
  "torch._utils._rebuild_tensor": tensor,
  "torch._utils._rebuild_tensor_v2": tensor,
  "torch._utils._rebuild_parameter": _first,
  "torch._utils._rebuild_parameter_with_state": _first,
  "torch.nn.parameter.Parameter": _parameter,
  "torch.autograd.variable.Variable": _parameter,
}


class Storages:
  """The storages that a pickle refers to, each made once."""

  def __init__(self):
    self.by_key: dict[str, Storage] = {}

  def persistent(self, identity: Any) -> Any:
    """("storage", kind, key, place, numel[, view]), or ("module", class, file, source text)."""
    if not isinstance(identity, tuple):
      raise Refused("it refers to data outside of itself in no way of torch.save")
    if len(identity) == 4 and identity[0] == "module":
      return identity[1]
    if len(identity) not in (5, 6) or identity[0] != "storage":
      raise Refused("it refers to data outside of itself that are no storage")
    _, kind, key, _, numel, *view = identity
    dtype = dtype_of(kind.name) if isinstance(kind, Name) else None
    if dtype is None or not isinstance(key, str) or not _is_count(numel):
      raise Refused("it refers to a storage of no known type or size")
    root = self.by_key.setdefault(key, Storage(key, dtype, numel))
    if (root.dtype, root.numel) != (dtype, numel):
      raise Refused(f"it has storage {key} with two types or two sizes")
    return View(root, _offset(*view))


def _offset(view: Any = None) -> int:
  """Where in its storage a view of it begins; a view is (key, offset, numel)."""
  if view is None:
    return 0
  if not (isinstance(view, tuple) and len(view) == 3 and _is_count(view[1])):
    raise Refused("it refers to a part of a storage that begins nowhere")
  return view[1]
