"""PyTorch state dicts as Flax variables: exact names, exact shapes, nothing left over."""

import json
import pathlib

import jax
import numpy as np
import pytest

from jprotop.errors import InputError
from jprotop.prototypes.protopnet import ProtoPNet
from jprotop.torch_io.names import variables_from_state_dict

GOLDEN = pathlib.Path(__file__).parent / "golden"
NETWORKS = {
  "resnet18": "regular",
  "resnet34": "regular",
  "resnet50": "bottleneck",
  "vgg19": "regular",
  "vgg19_bn": "bottleneck",
  "densenet121": "regular",
}


def model_and_state(name):
  """A network and a state dict of zeros with the reference's names and shapes."""
  shapes = json.loads((GOLDEN / f"state_dict_{name}.json").read_text())
  state = {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
  count, depth = state["prototype_vectors"].shape[:2]
  classes = state["last_layer.weight"].shape[0]
  prototype_class = np.repeat(np.arange(classes), count // classes)
  return ProtoPNet(name, classes, tuple(prototype_class.tolist()), depth, NETWORKS[name]), state


@pytest.mark.parametrize("name", NETWORKS)
def test_reference_state_dicts_fit_name_by_name(name):
  model, state = model_and_state(name)
  variables = variables_from_state_dict(model, state)
  ignored = [k for k in state if k == "ones" or k.endswith("num_batches_tracked")]
  assert len(jax.tree.leaves(variables)) == len(state) - len(ignored)
  sizes = sum(state[k].size for k in state if k not in ignored)
  assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == sizes


def test_values_land_where_they_belong_in_our_layouts():
  model, state = model_and_state("resnet50")
  rng = np.random.default_rng(0)
  kinds = {
    "features.conv1.weight": "params/features/conv1/kernel",
    "features.layer1.0.conv2.weight": "params/features/layer1_0/conv2/kernel",
    "features.layer2.0.downsample.0.weight": "params/features/layer2_0/downsample_conv/kernel",
    "features.layer2.0.downsample.1.weight": "params/features/layer2_0/downsample_bn/scale",
    "features.layer2.0.downsample.1.bias": "params/features/layer2_0/downsample_bn/bias",
    "features.layer4.2.bn3.running_mean": "batch_stats/features/layer4_2/bn3/mean",
    "features.layer4.2.bn3.running_var": "batch_stats/features/layer4_2/bn3/var",
    "add_on_layers.14.weight": "params/add_on/conv14/kernel",
    "add_on_layers.14.bias": "params/add_on/conv14/bias",
    "prototype_vectors": "params/prototypes",
    "last_layer.weight": "params/last_layer",
  }
  for key in kinds:
    state[key] = rng.random(state[key].shape).astype(np.float32)
  variables = variables_from_state_dict(model, state)
  for key, path in kinds.items():
    found = variables
    for part in path.split("/"):
      found = found[part]
    found, value = np.asarray(found), state[key]
    if key == "prototype_vectors":
      assert (found == value[:, :, 0, 0]).all(), key
    elif key == "last_layer.weight":
      assert all(found[p, c] == value[c, p] for c, p in np.ndindex(value.shape)), key
    elif value.ndim == 4:
      o, i, y, x = (n - 1 for n in value.shape)
      assert found.shape == (y + 1, x + 1, i + 1, o + 1), key
      assert found[y, 0, i, 0] == value[0, i, y, 0] and found[0, x, 0, o] == value[o, 0, 0, x], key
    else:
      assert (found == value).all(), key


def test_vgg_layers_keep_their_indices():
  model, state = model_and_state("vgg19_bn")
  state["features.features.8.running_var"][:] = 2
  state["features.features.8.weight"][:] = 3
  state["features.features.7.bias"][:] = 4
  variables = variables_from_state_dict(model, state)
  assert (variables["batch_stats"]["features"]["bn8"]["var"] == 2).all()
  assert (variables["params"]["features"]["bn8"]["scale"] == 3).all()
  assert (variables["params"]["features"]["conv7"]["bias"] == 4).all()


def test_counters_may_be_absent_and_all_else_is_strict():
  model, state = model_and_state("resnet18")
  optional = {k for k in state if k == "ones" or k.endswith("num_batches_tracked")}
  variables_from_state_dict(model, {k: v for k, v in state.items() if k not in optional})
  del state["features.layer3.1.conv2.weight"]
  state["features.layer3.1.conv9.weight"] = np.zeros((1, 1, 1, 1), np.float32)
  state["last_layer.weight"] = state["last_layer.weight"][:, :-1]
  with pytest.raises(InputError) as error:
    variables_from_state_dict(model, state)
  message = str(error.value)
  assert "missing: features.layer3.1.conv2.weight" in message
  assert "not used: features.layer3.1.conv9.weight" in message
  assert "last_layer.weight: shape" in message
