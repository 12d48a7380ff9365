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
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jprotop.errors import InputError
from jprotop.models.densenet import DENSENETS
from jprotop.models.protopnet import ProtoPNet
from jprotop.models.vgg import VGGS

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

  def from_torch(self, array: np.ndarray) -> np.ndarray:
    if self.path[-1] == "prototypes":
      return array.reshape(self.shape)
    return array.transpose(self._axes)

  def to_torch(self, array: np.ndarray) -> np.ndarray:
    if self.path[-1] == "prototypes":
      return array.reshape(self.torch_shape)
    return array.transpose(np.argsort(self._axes))


def _torch_name(path: tuple[str, ...], backbone: str) -> str:
  """Name in the state dict of the array at a Flax path."""
  _, *modules, leaf = path
  if leaf == "prototypes":
    return "prototype_vectors"
  if leaf == "last_layer":
    return "last_layer.weight"
  name = ".".join([*modules, _LEAVES[leaf]])
  name = re.sub(r"^add_on\.conv", "add_on_layers.", name)
  if backbone in VGGS:
    return re.sub(r"^features\.(?:conv|bn)", "features.features.", name)
  if backbone in DENSENETS:
    name = re.sub(r"^features\.", "features.features.", name)
    return re.sub(r"\.(denseblock\d+|transition\d+)_", r".\1.", name)
  name = re.sub(r"\.layer(\d)_(\d+)\.", r".layer\1.\2.", name)
  return name.replace(".downsample_conv.", ".downsample.0.").replace(
    "downsample_bn", "downsample.1"
  )


@functools.lru_cache(maxsize=64)
def entries_of(model: ProtoPNet) -> dict[str, Entry]:
  """All arrays of a network by their name in PyTorch's state dict."""
  image = jnp.zeros((1, 64, 64, 3))
  shapes = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), image))
  return {
    _torch_name(path, model.backbone): Entry(path, leaf.shape) for path, leaf in shapes.items()
  }


def backbone_entries(backbone: str) -> dict[str, Entry]:
  """The arrays of a backbone by their name in torchvision's files."""
  entries = entries_of(ProtoPNet(backbone, 1, (0,), 1))
  start = "features."
  return {n.removeprefix(start): e for n, e in entries.items() if n.startswith(start)}


def is_counter(name: str) -> bool:
  """What batch norm counts, and nobody here uses; it may be absent."""
  return name.rpartition(".")[2] == "num_batches_tracked"


def variables_from_state_dict(model: ProtoPNet, state: Mapping[str, np.ndarray]) -> dict:
  """Flax variables of `model` from a ProtoPNet state dict of arrays.

  Raises:
    InputError: entries that the model needs are missing, not used, of another shape, or not finite.
  """
  needed = {n: a for n, a in state.items() if n != "ones"}
  return _assemble(entries_of(model), needed, f"a {model.backbone} network of this shape")


def backbone_from_state_dict(backbone: str, state: Mapping[str, np.ndarray]) -> dict:
  """Flax variables {params: {features}, batch_stats: {features}} from a file of a backbone alone.

  Torchvision's files and those of iNaturalist (BBN) are known; their classifiers are left out. Of
  BBN's two last blocks `cb_block` is layer4.2, and `rb_block` is layer4.3 of resnet50_inat, which
  has one more block than ResNet-50, where it is left out.

  Raises:
    InputError: as `variables_from_state_dict`.
  """
  renamed = {}
  for name, array in state.items():
    found = _backbone_name(name, backbone)
    if found is not None:
      renamed[found] = array
  return _assemble(backbone_entries(backbone), renamed, f"the backbone {backbone}")


def _backbone_name(name: str, backbone: str) -> str | None:
  """Torchvision's name of an entry of a backbone file; None: it has no part in a backbone."""
  if re.match(r"(fc|classifier)\.", name):
    return None
  name = name.removeprefix("backbone.")
  name = re.sub(r"^cb_block\.", "layer4.2.", name)
  if name.startswith("rb_block."):
    return name.replace("rb_block.", "layer4.3.") if backbone == "resnet50_inat" else None
  # Torchvision's DenseNet files still have the names of its first version.
  return re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", name)


def _assemble(entries: Mapping[str, Entry], state: Mapping[str, np.ndarray], what: str) -> dict:
  """The arrays in our layout as float32; everything that does not fit is one error."""
  state = {name: array for name, array in state.items() if not is_counter(name)}
  problems = mismatches(entries, {name: array.shape for name, array in state.items()})
  problems = problems or [f"not finite: {n}" for n, a in state.items() if not _is_finite(a)]
  if problems:
    raise InputError(f"the arrays do not fit {what}:\n  " + "\n  ".join(problems))
  arrays = {
    entry.path: jnp.asarray(np.ascontiguousarray(entry.from_torch(state[name])), jnp.float32)
    for name, entry in entries.items()
  }
  return {"batch_stats": {}, **unflatten_dict(arrays)} if arrays else {}


def mismatches(entries: Mapping[str, Entry], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
  """What is missing, not used, or of another shape, by name and in words."""
  problems = [f"missing: {name}" for name in entries if name not in shapes]
  problems += [f"not used: {name}" for name in shapes if name not in entries]
  problems += [
    f"{name}: shape {tuple(shapes[name])} where {entry.torch_shape} is needed"
    for name, entry in entries.items()
    if name in shapes and tuple(shapes[name]) != entry.torch_shape
  ]
  return sorted(problems)


def _is_finite(array: np.ndarray) -> bool:
  return array.dtype.kind in "iub" or bool(np.isfinite(array).all())


def state_dict_of(model: ProtoPNet, variables: dict) -> dict[str, np.ndarray]:
  """The state dict that the reference would save for these variables; it is strict about it."""
  arrays = flatten_dict(variables)
  state = {"prototype_vectors": None, "ones": None}
  for name, entry in sorted(entries_of(model).items(), key=lambda item: _natural(item[0])):
    state[name] = entry.to_torch(np.asarray(arrays[entry.path]))
    if name.endswith(".running_var"):
      state[f"{name.removesuffix('running_var')}num_batches_tracked"] = np.zeros((), np.int64)
  state["ones"] = np.ones_like(state["prototype_vectors"])
  return state


def _natural(name: str) -> Iterable:
  """Sorts denselayer2 before denselayer10."""
  return [part.zfill(4) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
