"""PyTorch's files as NumPy arrays, without PyTorch: what torch.save wrote, read as data.

Both of its forms: the zip of torch 1.6 and later, and the older row of pickles. In them a state
dict, one inside a training checkpoint, or a whole pickled module, whose tree of layers is walked
for its parameters and buffers. See `torch_pickles` for what a file may ask for.
"""

import contextlib
import dataclasses
import io
import itertools
import mmap
import os
import pathlib
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from jprotop.errors import InputError
from jprotop.interchange import pickles
from jprotop.interchange.pickles import Refused, StandIn
from jprotop.interchange.torch_pickles import Storages, Tensor, find

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_MAX_LAYERS, _MAX_DEPTH = 20_000, 64  # DenseNet-201 has 1,000, 6 deep
_MAGIC = 0x1950A86A20F9469CFC6C


@dataclasses.dataclass(frozen=True)
class TorchFile:
  """What a file holds.

  Attributes:
    state: the arrays by their name in the state dict, `module.` prefixes taken off.
    attributes: of a whole module: its own plain values and tensors, such as `num_classes`.
    form: in words, what kind of file it is.
  """

  state: dict[str, np.ndarray]
  attributes: dict[str, Any]
  form: str


def read(path: str | os.PathLike) -> TorchFile:
  """The arrays of a .pth or .pt file, float as they were stored (half, bfloat16, float or double).

  Raises:
    InputError: not such a file, damaged, or asking for anything that is not plain data.
  """
  path = pathlib.Path(path).expanduser()
  try:
    with open(path, "rb") as file, _mapped(file) as content:
      is_zip = content[:4] == b"PK\x03\x04"
      value, form = _read_zip(path) if is_zip else _read_old(content)
      state, attributes, kind = _state_of(value)
      largest = max(len(content), 2**20)
      arrays = {name: tensor.array(largest) for name, tensor in state.items()}
      shown = {k: _plain(v, largest) for k, v in attributes.items() if _is_plain(v)}
  except Refused as error:
    raise InputError(f"{path} was not read, and nothing of it was run: {error}") from error
  except OSError as error:
    raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
  return TorchFile(_without_prefix(arrays), shown, f"{kind}, {form}")


@contextlib.contextmanager
def _mapped(file: BinaryIO) -> Iterator[mmap.mmap]:
  if not os.fstat(file.fileno()).st_size:
    raise Refused("it is empty")
  with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
    yield content


# --- the two forms


def _read_zip(path: pathlib.Path) -> tuple[Any, str]:
  """The value in a zip file, all its storages filled."""
  try:
    with zipfile.ZipFile(path) as archive:
      entries = _checked_entries(archive, path.stat().st_size)
      roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
      if len(roots) != 1:
        raise Refused("it is a zip file, but not one of torch.save: it has no data.pkl")
      if f"{roots[0]}constants.pkl" in entries:
        raise Refused("it is a TorchScript program; save the model's state_dict() instead")
      storages = Storages()
      stream = io.BytesIO(archive.read(entries[f"{roots[0]}data.pkl"]))
      value = pickles.load(stream, find=find, persistent=storages.persistent)
      order = entries.get(f"{roots[0]}byteorder")
      swapped = order is not None and archive.read(order) == b"big"
      for key, storage in storages.by_key.items():
        entry = entries.get(f"{roots[0]}data/{key}")
        wanted = storage.numel * storage.dtype.itemsize
        if entry is None or entry.file_size < wanted:
          raise Refused(f"storage {key} should have {wanted} bytes, but they are not there")
        data = np.frombuffer(archive.read(entry), storage.dtype, storage.numel)
        storage.data = data.byteswap() if swapped else data
  except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
    raise Refused(f"the zip file is damaged or cut off ({error}); fetch it again") from error
  return value, "zip form"


def _checked_entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
  """The entries by name: none elsewhere, twice, compressed, or larger than the file itself."""
  entries: dict[str, zipfile.ZipInfo] = {}
  for entry in archive.infolist():
    name = entry.filename
    parts = name.split("/")
    if name in entries or parts[0] == "" or ".." in parts or "\\" in name or ":" in name:
      raise Refused(f"the zip file has an entry {name!r}, which would lie elsewhere, or twice")
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
      raise Refused(f"entry {name!r} is compressed or encrypted, which torch.save never does")
    if entry.file_size != entry.compress_size or entry.header_offset + entry.file_size > size:
      raise Refused(f"entry {name!r} claims {entry.file_size} bytes of a file of {size}")
    entries[name] = entry
  return entries


def _read_old(content: mmap.mmap) -> tuple[Any, str]:
  """The value in a file of before torch 1.6: five pickles, then the storages one by one."""
  nothing = lambda _: None  # noqa: E731
  try:
    magic = pickles.load(content, find=nothing)
  except Refused:
    magic = None
  if type(magic) is not int or magic != _MAGIC:
    raise Refused("it is none of the forms that torch.save writes")
  for _ in range(2):  # The protocol's version, and facts about the machine.
    pickles.load(content, find=nothing)
  storages = Storages()
  value = pickles.load(content, find=find, persistent=storages.persistent)
  keys = pickles.load(content, find=nothing)
  if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
    raise Refused("its list of storages is damaged")
  for key in keys:
    storage = storages.by_key.get(key)
    head = content.read(8)
    if storage is None or len(head) < 8 or struct.unpack("<q", head)[0] != storage.numel:
      raise Refused(f"storage {key} is not what its tensors claim, or the file is cut off")
    wanted = storage.numel * storage.dtype.itemsize
    if wanted > len(content) - content.tell():
      raise Refused(f"storage {key} should have {wanted} bytes, but the file ends before")
    storage.data = np.frombuffer(content.read(wanted), storage.dtype)
  if missing := [key for key, storage in storages.by_key.items() if storage.data is None]:
    raise Refused(f"storage {missing[0]} is not there")
  return value, "form of before torch 1.6"


# --- the state dict in what was saved


def _state_of(value: Any) -> tuple[dict[str, Tensor], dict[str, Any], str]:
  """Tensors by name, the attributes of a whole module, and what it is."""
  if isinstance(value, dict) and not _tensors(value):
    for key in _WRAPPERS:
      if isinstance(value.get(key), dict | StandIn):
        value = value[key]
        break
  if isinstance(value, StandIn):
    inner = _part(value, "_modules")
    if list(inner) == ["module"] and isinstance(inner["module"], StandIn):
      value = inner["module"]  # nn.DataParallel
    state = dict(_module_tensors(value, "", itertools.count()))
    own = {**value.state, **_part(value, "_buffers"), **_part(value, "_parameters")}
    attributes = {str(k): v for k, v in own.items() if not str(k).startswith("_")}
    found = state, attributes, f"a whole {value.name.rpartition('.')[2]} module"
  elif isinstance(value, dict):
    tensors = _tensors(value)
    if others := [str(key) for key in value if key not in tensors]:
      names = ", ".join(others[:10])
      raise Refused(f"it holds no state dict: {names} are no tensors")
    found = tensors, {}, "a state dict"
  else:
    found = {}, {}, ""
  if not found[0]:
    raise Refused("it holds neither a state dict nor a module with parameters")
  return found


def _tensors(value: dict) -> dict[str, Tensor]:
  return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _part(module: StandIn, name: str) -> dict:
  part = module.state.get(name)
  return part if isinstance(part, dict) else {}


def _module_tensors(
  module: StandIn, prefix: str, visits: Iterator[int]
) -> Iterator[tuple[str, Tensor]]:
  """A module's parameters and buffers, then those of the modules in it, as its state dict has."""
  if next(visits) > _MAX_LAYERS or prefix.count(".") > _MAX_DEPTH:
    raise Refused(f"it has more than {_MAX_LAYERS} layers, or more than {_MAX_DEPTH} in each other")
  hidden = module.state.get("_non_persistent_buffers_set")
  hidden = hidden if isinstance(hidden, set) else set()
  own = {**_part(module, "_parameters"), **_part(module, "_buffers")}
  for name, tensor in own.items():
    if isinstance(tensor, Tensor) and name not in hidden:
      yield f"{prefix}{name}", tensor
  for name, layer in _part(module, "_modules").items():
    if isinstance(layer, StandIn):
      yield from _module_tensors(layer, f"{prefix}{name}.", visits)


def _without_prefix(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Names without the `module.` of nn.DataParallel, where all have it."""
  while all(name.startswith("module.") for name in arrays):
    arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
  return arrays


def _is_plain(value: Any) -> bool:
  numbers = lambda v: all(isinstance(x, int | float) for x in v)  # noqa: E731
  plain = isinstance(value, bool | int | float | str | Tensor)
  return plain or (isinstance(value, tuple | list) and numbers(value))


def _plain(value: Any, largest: int) -> Any:
  return value.array(largest) if isinstance(value, Tensor) else value
