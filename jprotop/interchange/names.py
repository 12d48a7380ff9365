"""ProtoPNet state dicts in PyTorch's names and layouts, as Flax variables.

features.layer1.0.conv2.weight   [O, I, kh, kw]  params/features/layer1_0/conv2/kernel
features.layer1.0.downsample.1.* [O]             .../downsample_bn/{scale,bias} and batch_stats
features.features.7.weight       [O, I, kh, kw]  params/features/conv7/kernel (VGG)
add_on_layers.2.weight           [O, I, 1, 1]    params/add_on/conv2/kernel
prototype_vectors                [P, D, 1, 1]    params/prototypes [P, D]
last_layer.weight                [C, P]          params/last_layer [P, C]
"""

import re
from collections.abc import Mapping

import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from jprotop.models.protopnet import ProtoPNet, check_variables

_BATCH_NORM_LEAVES = {
  "weight": ("params", "scale"),
  "bias": ("params", "bias"),
  "running_mean": ("batch_stats", "mean"),
  "running_var": ("batch_stats", "var"),
}


def _module_path(prefix: str, kind: str) -> tuple[str, ...]:
  """Flax path of the layer at a PyTorch module prefix; `kind` is "conv" or "bn"."""
  prefix = re.sub(r"^add_on_layers\.(\d+)$", rf"add_on.{kind}\1", prefix)
  prefix = re.sub(r"^features\.features\.(\d+)$", rf"features.{kind}\1", prefix)
  prefix = re.sub(r"\.downsample\.\d$", f".downsample_{kind}", prefix)
  prefix = re.sub(r"\.layer(\d)\.(\d+)\.", r".layer\1_\2.", prefix)
  return tuple(prefix.split("."))


def flax_entry(name: str, state: Mapping[str, np.ndarray]) -> tuple[tuple, np.ndarray] | None:
  """Flax path and array of one state-dict entry; None for what has no counterpart."""
  prefix, _, leaf = name.rpartition(".")
  value = np.asarray(state[name])
  if name == "ones" or leaf == "num_batches_tracked":
    return None
  if name == "prototype_vectors":
    return ("params", "prototypes"), value[:, :, 0, 0]
  if name == "last_layer.weight":
    return ("params", "last_layer"), value.T
  if f"{prefix}.running_mean" in state:
    collection, flax_leaf = _BATCH_NORM_LEAVES[leaf]
    return (collection, *_module_path(prefix, "bn"), flax_leaf), value
  path = ("params", *_module_path(prefix, "conv"))
  if leaf == "weight":
    return (*path, "kernel"), value.transpose(2, 3, 1, 0)
  return (*path, leaf), value


def variables_from_state_dict(model: ProtoPNet, state: Mapping[str, np.ndarray]) -> dict:
  """Flax variables of `model` from a ProtoPNet state dict of arrays.

  Raises:
    InputError: entries that the model needs are missing, not used, or of another shape.
  """
  entries = [entry for name in state if (entry := flax_entry(name, state)) is not None]
  arrays = {path: jnp.asarray(value, jnp.float32) for path, value in entries}
  variables = flax.traverse_util.unflatten_dict(arrays)
  check_variables(model, variables, image_size=224)
  return variables
