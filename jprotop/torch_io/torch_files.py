"""PyTorch's files as NumPy arrays, without PyTorch: what torch.save wrote, read as data.

A file holds a state dict, one inside a training checkpoint, or a whole pickled module, whose tree
of layers is walked for its parameters and buffers. See `torch_forms` for the forms of files, and
`torch_pickles` for what a file may ask for.
"""

import dataclasses
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from jprotop.errors import InputError, excerpt
from jprotop.files import check_regular, user_path
from jprotop.torch_io import torch_forms
from jprotop.torch_io.pickles import Refused, StandIn
from jprotop.torch_io.torch_pickles import Tensor, tensor_of

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
# DenseNet-201 has 2,600 layers, parameters and buffers, 6 deep, with names of up to 50 characters.
_MAX_ENTRIES, _MAX_DEPTH, _MAX_NAME = 20_000, 64, 1000
_MAX_MESSAGE = 1000
_REMEDY = "save only the network's state_dict() with torch.save, and try again"


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
  path = user_path(path)
  check_regular(path)
  try:
    with open(path, "rb") as file:
      value, form = torch_forms.unpack(file)
      largest = max(os.fstat(file.fileno()).st_size, 2**20)
    state, attributes, kind = _state_of(value)
    arrays = {name: tensor.array(largest) for name, tensor in state.items()}
    shown = {key: _plain(value, largest) for key, value in attributes.items()}
  except Refused as error:
    message = f"{path} was not read, and nothing of it was run: {excerpt(error, _MAX_MESSAGE)}"
    raise InputError(message) from error
  except OSError as error:
    raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
  shown = {key: value for key, value in shown.items() if value is not None}
  return TorchFile(_without_prefix(arrays), shown, f"{kind}, {form}")


def _state_of(value: Any) -> tuple[dict[str, Tensor], dict[str, Any], str]:
  """Tensors by name, the attributes of a whole module, and what it is."""
  if isinstance(value, dict):
    inner = (value.get(key) for key in _WRAPPERS)
    value = next((v for v in inner if isinstance(v, dict | StandIn)), value)
  if isinstance(value, StandIn):
    layers = _part(value, "_modules")
    if list(layers) == ["module"] and isinstance(layers["module"], StandIn):
      value = layers["module"]  # nn.DataParallel
    state = _module_tensors(value)
    attributes = {**value.state, **_part(value, "_buffers"), **_part(value, "_parameters")}
    kind = f"a whole {value.name.rpartition('.')[2]} module"
  elif isinstance(value, dict):
    state, attributes, kind = _dict_tensors(value), {}, "a state dict"
  else:
    state, attributes, kind = {}, {}, ""
  if not state:
    raise Refused(f"it holds neither a state dict nor a module with parameters; {_REMEDY}")
  return state, {str(k): v for k, v in attributes.items() if not str(k).startswith("_")}, kind


def _dict_tensors(value: dict) -> dict[str, Tensor]:
  """The tensors of a state dict, which has nothing else."""
  state: dict[str, Tensor] = {}
  others = []
  for key, item in value.items():
    tensor = tensor_of(item)
    if tensor is None or not isinstance(key, str):
      others.append(key)
    else:
      state[key] = tensor
  if others:
    names = ", ".join(excerpt(key, 100) for key in others[:10])
    raise Refused(f"it holds no state dict, for {names} are no tensors; {_REMEDY}")
  return state


def _module_tensors(module: StandIn) -> dict[str, Tensor]:
  """The state dict of a module."""
  state: dict[str, Tensor] = {}
  for count, (name, tensor) in enumerate(_walk(module, "")):
    # By reference a small file can have its layers in each other 2**64 times.
    if count > _MAX_ENTRIES or name.count(".") > _MAX_DEPTH or len(name) > _MAX_NAME:
      raise Refused(
        f"it has more than {_MAX_ENTRIES} layers and parameters, or more than {_MAX_DEPTH} layers "
        "in each other, as no network has"
      )
    if tensor is not None:
      state[name] = tensor
  return state


def _walk(module: Any, prefix: str) -> Iterator[tuple[str, Tensor | None]]:
  """A layer itself, its parameters and buffers, then the layers in it; no tensor: not in the state.

  It yields before each step further in, so that who asks for the next one can stop in time.
  """
  yield prefix, None
  if not isinstance(module, StandIn):
    return
  hidden = module.state.get("_non_persistent_buffers_set")
  hidden = hidden if isinstance(hidden, set) else set()
  for part in ("_parameters", "_buffers"):
    for name, value in _part(module, part).items():
      yield f"{prefix}{name}", None if name in hidden else tensor_of(value)
  for name, layer in _part(module, "_modules").items():
    yield from _walk(layer, f"{prefix}{name}.")


def _part(module: StandIn, name: str) -> dict:
  part = module.state.get(name)
  return part if isinstance(part, dict) else {}


def _without_prefix(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Names without the `module.` of nn.DataParallel, where all have it."""
  prefix = min(re.findall(r"^(?:module\.)*", name)[0] for name in arrays)
  return {name.removeprefix(prefix): array for name, array in arrays.items()}


def _plain(value: Any, largest: int) -> Any:
  """An attribute that is a tensor, a number, a text, or a few numbers; None: it is none of them."""
  if (tensor := tensor_of(value)) is not None:
    return tensor.array(largest)
  few = isinstance(value, tuple | list) and len(value) <= 16
  if isinstance(value, int | float | str) or (
    few and all(isinstance(x, int | float) for x in value)
  ):
    return value
  return None
