"""ProtoPNet state dicts in PyTorch's names and layouts, to Flax variables and back.

features.layer1.0.conv2.weight   [O, I, kh, kw]  params/features/layer1_0/conv2/kernel (ResNet)
features.layer1.0.downsample.1.* [O]             .../downsample_bn/{scale,bias} and batch_stats
features.features.7.weight       [O, I, kh, kw]  params/features/conv7/kernel (VGG)
features.features.denseblock1.denselayer2.norm1  params/features/denseblock1_denselayer2/norm1
add_on_layers.2.weight           [O, I, 1, 1]    params/add_on/conv2/kernel
prototype_vectors                [P, D, 1, 1]    params/prototypes [P, D]
last_layer.weight                [C, P]          params/last_layer [P, C]

A backbone file of torchvision has the same names without the first `features.`.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Shaped

from jprotop.errors import InputError, excerpt
from jprotop.networks.families import Names, family_of, make_backbone
from jprotop.prototypes.protopnet import AddOn, ProtoPNet

# Of a message about arrays that do not fit: enough to see why, and to read.
_MOST_LINES = 50
_LEAVES = {
  "kernel": "weight",
  "bias": "bias",
  "scale": "weight",
  "mean": "running_mean",
  "var": "running_var",
}


@dataclasses.dataclass(frozen=True)
class Entry:
  """One array of a network: where it stands in the Flax variables, and its shape there."""

  path: tuple[str, ...]
  shape: tuple[int, ...]

  @property
  def _axes(self) -> tuple[int, ...]:
    """PyTorch's axes in our order: OIHW to HWIO, [C, P] to [P, C]."""
    if self.path[-1] == "kernel":
      return (2, 3, 1, 0)
    return (1, 0) if self.path[-1] == "last_layer" else tuple(range(len(self.shape)))

  @property
  def torch_shape(self) -> tuple[int, ...]:
    if self.path[-1] == "prototypes":
      return (*self.shape, 1, 1)
    return tuple(self.shape[axis] for axis in np.argsort(self._axes))

  def from_torch(self, array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    if self.path[-1] == "prototypes":
      return array.reshape(self.shape)
    return array.transpose(self._axes)

  def to_torch(self, array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    if self.path[-1] == "prototypes":
      return array.reshape(self.torch_shape)
    return array.transpose(np.argsort(self._axes))


def _names_of(backbone: str) -> Names:
  names = family_of(backbone).names
  if names is None:
    raise InputError(
      f"train.model.backbone={backbone!r} cannot be imported from PyTorch or written for it: its "
      "Family was registered without the names of its arrays there"
    )
  return names


def _torch_name(path: tuple[str, ...], backbone: Names) -> str:
  """Name in the state dict of the array at a Flax path."""
  _, *modules, leaf = path
  if leaf == "prototypes":
    return "prototype_vectors"
  if leaf == "last_layer":
    return "last_layer.weight"
  part, *modules = modules
  name = ".".join([*modules, _LEAVES[leaf]])
  if part == "add_on":
    return re.sub(r"^conv", "add_on_layers.", name)
  return f"features.{backbone.to_torch(name)}"


@functools.lru_cache
def _backbone_shapes(backbone: str) -> tuple[jax.ShapeDtypeStruct, dict]:
  """Shapes of what a backbone gives, and of its variables; traced once, as it takes a second."""
  image = jnp.zeros((1, 64, 64, 3))
  network = make_backbone(backbone)
  return jax.eval_shape(lambda: network.init_with_output(jax.random.key(0), image))


@functools.lru_cache(maxsize=64)
def entries_of(model: ProtoPNet) -> dict[str, Entry]:
  """All arrays of a network by their name in PyTorch's state dict."""
  backbone = _names_of(model.backbone)
  out, features = _backbone_shapes(model.backbone)
  add_on = AddOn(model.prototype_depth, model.addon, model.options)
  latent = jnp.zeros((1, 1, 1, model.prototype_depth))
  head = functools.partial(model.init, method="from_latent")
  key = jax.random.key(0)
  shapes: dict[tuple[str, ...], Any] = flatten_dict(jax.eval_shape(head, key, latent))
  for name, part in (("features", features), ("add_on", jax.eval_shape(add_on.init, key, out))):
    shapes |= {(kind, name, *path): leaf for (kind, *path), leaf in flatten_dict(part).items()}
  return {_torch_name(path, backbone): Entry(path, leaf.shape) for path, leaf in shapes.items()}


def backbone_entries(backbone: str) -> dict[str, Entry]:
  """The arrays of a backbone by their name in torchvision's files."""
  entries = entries_of(ProtoPNet(backbone, 1, (0,), 1))
  start = "features."
  return {n.removeprefix(start): e for n, e in entries.items() if n.startswith(start)}


def _counter(name: str) -> str:
  """Name of what the batch norm with a running variance of that name counts."""
  return f"{name.removesuffix('running_var')}num_batches_tracked"


def _ignored(entries: Mapping[str, Entry]) -> set[str]:
  """What a file may hold besides, and nobody uses: such counters, and ProtoPNet's constant."""
  counters = {_counter(name) for name in entries if name.endswith(".running_var")}
  return counters | ({"ones"} if "prototype_vectors" in entries else set())


def variables_from_state_dict(model: ProtoPNet, state: Mapping[str, np.ndarray]) -> dict:
  """Flax variables of `model` from a ProtoPNet state dict of arrays.

  Raises:
    InputError: as `check_fit`.
  """
  what = f"{model.backbone} with {model.addon} add-on layers"
  return _assemble(entries_of(model), state, what)


def backbone_from_state_dict(backbone: str, state: Mapping[str, np.ndarray]) -> dict:
  """Flax variables {params: {features}, batch_stats: {features}} from a file of a backbone alone.

  What the family's published files are known to hold besides, as their classifiers, is left out.

  Raises:
    InputError: as `check_fit`.
  """
  of_file = _names_of(backbone).of_file
  renamed: dict[str, np.ndarray] = {}
  for name, array in state.items():
    found = of_file(name, backbone)
    if found is not None:
      renamed[found if found not in renamed else f"{name} (a second time)"] = array
  return _assemble(backbone_entries(backbone), renamed, f"the backbone {backbone}")


def _assemble(entries: Mapping[str, Entry], state: Mapping[str, np.ndarray], what: str) -> dict:
  """The arrays in our layout as float32."""
  check_fit(entries, state, what)
  arrays = {
    entry.path: jnp.asarray(np.ascontiguousarray(entry.from_torch(_float32(state[name]))))
    for name, entry in entries.items()
  }
  return {"batch_stats": {}, **unflatten_dict(arrays)}


def check_fit(entries: Mapping[str, Entry], state: Mapping[str, np.ndarray], what: str) -> None:
  """One InputError that lists all arrays that are missing, not used, misshapen, or not finite."""
  problems = mismatches(entries, state)
  problems = problems or [
    f"not finite: {name}" for name in entries if not np.isfinite(_float32(state[name])).all()
  ]
  if problems:
    lines = [excerpt(line) for line in problems[:_MOST_LINES]]
    lines += [f"and {len(problems) - _MOST_LINES} more"] if len(problems) > _MOST_LINES else []
    raise InputError(f"the arrays do not fit {what}:\n  " + "\n  ".join(lines))


def mismatches(entries: Mapping[str, Entry], state: Mapping[str, np.ndarray]) -> list[str]:
  """What is missing, not used, or of another shape, by name and in words."""
  unused = state.keys() - entries.keys() - _ignored(entries)
  problems = [f"missing: {name}" for name in entries.keys() - state.keys()]
  problems += [f"not used: {name}" for name in unused]
  problems += [
    f"{name}: shape {state[name].shape} where {entry.torch_shape} is needed"
    for name, entry in entries.items()
    if name in state and state[name].shape != entry.torch_shape
  ]
  return sorted(problems)


def _float32(array: np.ndarray) -> np.ndarray:
  with np.errstate(over="ignore"):  # A double may be too large; that is then not finite.
    return np.asarray(array, np.float32)


def state_dict_of(model: ProtoPNet, variables: dict) -> dict[str, np.ndarray]:
  """The state dict that the reference would save for these variables; it is strict about it."""
  arrays: dict[tuple[str, ...], Any] = flatten_dict(variables)
  entries = sorted(entries_of(model).items(), key=lambda item: _natural(item[0]))
  found = {name: entry.to_torch(np.asarray(arrays[entry.path])) for name, entry in entries}
  vectors = found["prototype_vectors"]
  state = {"prototype_vectors": vectors, "ones": np.ones_like(vectors)}
  for name, array in found.items():
    state[name] = array
    if name.endswith(".running_var"):
      state[_counter(name)] = np.zeros((), np.int64)
  return state


def _natural(name: str) -> list[str]:
  """Sorts denselayer2 before denselayer10."""
  return [part.zfill(4) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
