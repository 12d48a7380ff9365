"""A state dict as PyTorch's zip form, written without PyTorch."""

import os
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

from jprotop.errors import InputError
from jprotop.files import atomic_path

_STORAGES = {np.dtype(np.float32): "FloatStorage", np.dtype(np.int64): "LongStorage"}


def write_state_dict(path: str | os.PathLike, state: Mapping[str, np.ndarray]) -> None:
  """Writes float32 and int64 arrays as a file that torch.load reads with weights_only=True.

  Raises:
    InputError: the place cannot be written, or an array is of another type.
  """
  for name, array in state.items():
    if array.dtype not in _STORAGES:
      raise InputError(f"{name} is {array.dtype}; a state dict is written of float32 and int64")
  with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
    archive.writestr("archive/data.pkl", _pickle(state))
    archive.writestr("archive/byteorder", "little")
    for key, array in enumerate(state.values()):
      little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
      archive.writestr(f"archive/data/{key}", little.tobytes())
    archive.writestr("archive/version", "3\n")


# The pickle is put together here because Python's own pickler refuses names of modules that cannot
# be imported, and without PyTorch torch._utils is one.
_OPEN, _TUPLE, _CALL, _EMPTY, _FALSE = b"(", b"t", b"R", b")", b"\x89"


def _name(module: str, name: str) -> bytes:
  return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
  encoded = text.encode()
  return b"X" + struct.pack("<I", len(encoded)) + encoded


def _whole(number: int) -> bytes:
  """LONG1: any whole number of up to 255 bytes, little-endian."""
  encoded = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
  return b"\x8a" + bytes([len(encoded)]) + encoded


def _tuple(*items: bytes) -> bytes:
  return b"".join([_OPEN, *items, _TUPLE])


_ORDERED_DICT = _name("collections", "OrderedDict") + _EMPTY + _CALL


def _pickle(state: Mapping[str, np.ndarray]) -> bytes:
  """OrderedDict of name to _rebuild_tensor_v2(storage, offset, size, stride, False, hooks)."""
  items = []
  for key, (name, array) in enumerate(state.items()):
    kind = _name("torch", _STORAGES[array.dtype])
    where = _tuple(_text("storage"), kind, _text(str(key)), _text("cpu"), _whole(array.size))
    stride = np.cumprod([1, *array.shape[:0:-1]])[::-1][: array.ndim].tolist()
    arguments = _tuple(
      where + b"Q",
      _whole(0),
      _tuple(*map(_whole, array.shape)),
      _tuple(*map(_whole, stride)),
      _FALSE,
      _ORDERED_DICT,
    )
    items += [_text(name), _name("torch._utils", "_rebuild_tensor_v2"), arguments, _CALL]
  return b"".join([b"\x80\x02", _ORDERED_DICT, _OPEN, *items, b"u."])
