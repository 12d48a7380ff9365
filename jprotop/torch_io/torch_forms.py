"""The three forms of file that torch.save has had: the value in them, and its tensors' data.

The zip of torch 1.6 and later; before it a row of pickles with the storages behind them; and the
tar of 2016 and early 2017, in which torchvision's ResNets still come. Nothing is unpacked to disk.
"""

import io
import os
import re
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from jprotop.errors import excerpt
from jprotop.torch_io import pickles, torch_pickles
from jprotop.torch_io.pickles import Refused
from jprotop.torch_io.torch_pickles import Storage, Storages, Tensor, View

_MAGIC = 0x1950A86A20F9469CFC6C
_TAR_BLOCK, _MAX_MEMBERS, _MAX_ENTRIES = 512, 100, 100_000
# What damaged files raise in the code that takes them apart, zipfile's included.
_DAMAGE = (
  *(ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError),
  *(EOFError, OSError, struct.error, zipfile.BadZipFile),
)


def unpack(file: BinaryIO) -> tuple[Any, str]:
  """The value in a file, and its form in words.

  Raises:
    Refused: it is none of the forms, damaged, or asks for what is not allowed.
  """
  size = os.fstat(file.fileno()).st_size
  if not size:
    raise Refused("it is empty")
  start = file.read(_TAR_BLOCK)
  file.seek(0)
  try:
    if start.startswith(b"PK\x03\x04"):
      return _read_zip(file, size), "zip form"
    if start[257:262] == b"ustar":
      return _read_tar(file, size), "tar form of early 2017 and before"
    return _read_row(file, size), "form of before torch 1.6"
  except Refused:
    raise
  except _DAMAGE as error:
    raise Refused(f"it is damaged or cut off ({error}); fetch it again") from error


def _nothing(_: str) -> None:
  """The names that plain data may ask for."""


# --- zip


def _read_zip(file: BinaryIO, size: int) -> Any:
  with zipfile.ZipFile(file) as archive:
    entries = _checked_entries(archive, size)
    roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
      raise Refused("it is a zip file, but none of torch.save's: it has not one data.pkl")
    if f"{roots[0]}constants.pkl" in entries:
      raise Refused("it is a TorchScript program; save the model's state_dict() instead")
    storages = Storages()
    with archive.open(entries[f"{roots[0]}data.pkl"]) as part:
      content = io.BytesIO(part.read(pickles.MAX_BYTES))
    value = pickles.load(content, find=torch_pickles.find, persistent=storages.persistent)
    order = entries.get(f"{roots[0]}byteorder")
    swapped = order is not None and archive.read(order) == b"big"
    for key, storage in storages.by_key.items():
      entry = entries.get(f"{roots[0]}data/{key}")
      wanted = storage.numel * storage.dtype.itemsize
      if entry is None or entry.file_size < wanted:
        raise Refused(f"storage {key} should have {wanted} bytes, but they are not there")
      data = np.frombuffer(archive.read(entry), storage.dtype, storage.numel)
      storage.data = data.byteswap() if swapped else data
  return value


def _checked_entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
  """The entries by name: none elsewhere, twice, compressed, or out of the file of `size` bytes."""
  entries: dict[str, zipfile.ZipInfo] = {}
  for entry in archive.infolist():
    name = entry.filename
    elsewhere = re.match(r"/|[A-Za-z]:", name) or ".." in name.split("/") or "\\" in name
    if name in entries or elsewhere:
      raise Refused(f"the zip file has an entry {name!r}, which would lie elsewhere, or twice")
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
      raise Refused(f"entry {name!r} is compressed or encrypted, which torch.save never does")
    if entry.file_size != entry.compress_size or entry.header_offset < 0:
      raise Refused(f"entry {name!r} claims two sizes or to begin before the file")
    entries[name] = entry
  claimed = sum(entry.file_size for entry in entries.values())
  if claimed > size:
    raise Refused(f"its entries claim {claimed} bytes, but the file has {size}")
  return entries


# --- a row of pickles


def _read_row(file: BinaryIO, size: int) -> Any:
  """Three small pickles, the value, the storages' keys, and then the storages one by one."""
  try:
    magic = pickles.load(file, find=_nothing)
  except Refused:
    magic = None
  if type(magic) is not int or magic != _MAGIC:
    raise Refused("it is none of the forms that torch.save writes")
  for _ in range(2):  # The form's version, and facts about the machine.
    pickles.load(file, find=_nothing)
  storages = Storages()
  value = pickles.load(file, find=torch_pickles.find, persistent=storages.persistent)
  for key in map(pickles.key_of, pickles.load(file, find=_nothing)):
    storage = storages.by_key.get(key)
    if storage is None:
      raise Refused(f"it has a storage {key} that no tensor is of")
    storage.data = _numbers(file, size, storage.dtype)
    if len(storage.data) != storage.numel:
      raise Refused(f"storage {key} has {len(storage.data)} numbers instead of {storage.numel}")
  if missing := [key for key, storage in storages.by_key.items() if storage.data is None]:
    raise Refused(f"storage {missing[0]} is not there")
  return value


def _numbers(file: BinaryIO, size: int, dtype: np.dtype) -> np.ndarray:
  """A storage as both old forms have it: how many numbers, int64, then the numbers."""
  (count,) = struct.unpack("<q", file.read(8))
  left = size - file.tell()
  if not 0 <= count * dtype.itemsize <= left:
    raise Refused(f"a storage claims {count} numbers, but the file has {left} bytes more")
  return np.frombuffer(file.read(count * dtype.itemsize), dtype)


# --- tar


def _read_tar(file: BinaryIO, size: int) -> Any:
  """`pickle` names the tensors by number, `tensors` has their shapes, and `storages` the data."""
  members = _tar_members(file, size)
  if missing := {"pickle", "tensors", "storages"} - members.keys():
    raise Refused(f"it is a tar file, but not one of torch.save: it has no {min(missing)}")
  storages: dict[int, Storage] = {}
  file.seek(members["tensors"])
  tensors = dict(_tar_tensors(file, storages))

  def persistent(identity: Any) -> Any:
    if isinstance(identity, tuple) and len(identity) == 3:
      return identity[0]  # A class; its file and source text are left out.
    if not isinstance(identity, str) or identity not in tensors:
      raise Refused("it refers to a tensor that is not there")
    return tensors[identity]

  file.seek(members["pickle"])
  value = pickles.load(file, find=torch_pickles.find, persistent=persistent)
  file.seek(members["storages"])
  _fill_tar_storages(file, size, storages)
  return value


def _tar_members(file: BinaryIO, size: int) -> dict[str, int]:
  """Where the contents of each file in it begin; a header is a block, and contents fill blocks."""
  members: dict[str, int] = {}
  position = 0
  for _ in range(_MAX_MEMBERS):
    file.seek(position)
    header = file.read(_TAR_BLOCK)
    if len(header) < _TAR_BLOCK or not any(header):
      break
    position += _TAR_BLOCK
    length = int(header[124:136].rstrip(b"\0 "), 8)
    if not 0 <= length <= size - position:
      raise Refused(f"the tar file claims an entry of {length} bytes, but is cut off")
    if header[156:157] in b"0\0":
      members[header[:100].rstrip(b"\0").decode()] = position
    position += -(-length // _TAR_BLOCK) * _TAR_BLOCK
  return members


def _tar_tensors(file: BinaryIO, storages: dict[int, Storage]) -> Iterator[tuple[str, Tensor]]:
  """The tensors by number, of storages without data, which are collected by theirs."""
  for _ in range(_count(file)):
    key, storage_key, kind = pickles.load(file, find=torch_pickles.find)
    dtype = torch_pickles.numbers_of(kind.name)
    storage = Storage(str(pickles.key_of(storage_key)), dtype, 0, np.zeros(0, dtype))
    if storage_key is not None:  # As it is where there are no numbers.
      storage = storages.setdefault(storage_key, storage)
    (dimensions,) = struct.unpack("<i4x", file.read(8))
    if not 0 <= dimensions <= torch_pickles.MAX_DIMENSIONS:
      raise Refused(f"a tensor has {dimensions} dimensions")
    numbers = struct.unpack(f"<{2 * dimensions + 1}q", file.read(16 * dimensions + 8))
    shape, stride = numbers[:dimensions], numbers[dimensions:-1]
    tensor = torch_pickles.tensor(View(storage, 0), numbers[-1], shape, stride)
    yield str(pickles.key_of(key)), tensor


def _fill_tar_storages(file: BinaryIO, size: int, storages: dict[int, Storage]) -> None:
  """Data for the storages: first whole ones, then those that are parts of them."""
  rows: dict[int, np.ndarray] = {}
  for _ in range(_count(file)):
    key, _, kind = pickles.load(file, find=torch_pickles.find)
    rows[pickles.key_of(key)] = _numbers(file, size, torch_pickles.numbers_of(kind.name))
  for key, root, offset, numel in pickles.load(file, find=_nothing):
    if not 0 <= offset <= offset + numel <= len(rows[pickles.key_of(root)]):
      raise Refused(f"a storage should be a part of storage {root}, which is shorter")
    rows[pickles.key_of(key)] = rows[root][offset : offset + numel]
  for key, storage in storages.items():
    if key not in rows or rows[key].dtype != storage.dtype:
      raise Refused(f"storage {key} is not there, or of another type than its tensors")
    storage.data, storage.numel = rows[key], len(rows[key])


def _count(file: BinaryIO) -> int:
  """How many entries follow in a member of a tar."""
  count = pickles.load(file, find=_nothing)
  if type(count) is not int or not 0 <= count <= _MAX_ENTRIES:
    raise Refused(f"it claims to have {excerpt(count)} tensors")
  return count
