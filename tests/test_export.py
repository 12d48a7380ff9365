"""Networks as PyTorch's files, written without it: names, shapes, and every bit there and back."""

import json
import pathlib

import conftest
import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from jprotop.errors import InputError
from jprotop.prototypes.protopnet import ProtoPNet
from jprotop.torch_io import export, names, torch_files

GOLDEN = pathlib.Path(__file__).parent / "golden"
GOLDEN_NAMES = ("resnet18", "resnet34", "resnet50", "vgg19", "vgg19_bn", "densenet121")


def golden_shapes(name):
  shapes = json.loads((GOLDEN / f"state_dict_{name}.json").read_text())
  return {key: tuple(shape) for key, shape in shapes.items()}


def bits(array):
  """What two arrays must have in common to be the same, signs of zero and all."""
  return array.dtype, array.shape, np.ascontiguousarray(array).tobytes()


def there_and_back(path, state):
  export.write_state_dict(path, state)
  return torch_files.read(path)


# --- names and shapes


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_the_names_and_shapes_of_the_reference(name):
  wanted = golden_shapes(name)
  (count, depth, *_), (classes, _) = wanted["prototype_vectors"], wanted["last_layer.weight"]
  addon = "bottleneck" if "add_on_layers.4.weight" in wanted else "regular"
  model = ProtoPNet(name, classes, (0,) * count, depth, addon)
  zero = np.float32(0)
  arrays = {e.path: np.broadcast_to(zero, e.shape) for e in names.entries_of(model).values()}
  state = names.state_dict_of(model, unflatten_dict(arrays))
  assert {key: array.shape for key, array in state.items()} == wanted
  counters = {key for key in state if key.endswith("num_batches_tracked")}
  assert {state[key].dtype for key in counters} <= {np.dtype(np.int64)}
  assert {state[key].dtype for key in state.keys() - counters} == {np.dtype(np.float32)}
  assert (state["ones"] == 1).all()


def test_layers_come_in_their_natural_order():
  model = ProtoPNet("densenet121", 2, (0, 1), 4)
  zero = np.float32(0)
  arrays = {e.path: np.broadcast_to(zero, e.shape) for e in names.entries_of(model).values()}
  state = list(names.state_dict_of(model, unflatten_dict(arrays)))
  assert state[:2] == ["prototype_vectors", "ones"]
  first = [key for key in state if key.endswith("denseblock3.denselayer1.conv1.weight")]
  layers = [key for key in state if "denseblock3" in key and key.endswith("conv1.weight")]
  assert layers[:1] == first
  numbers = [int(key.split("denselayer")[1].split(".")[0]) for key in layers]
  assert numbers == list(range(1, 25))


# --- there and back


@pytest.mark.parametrize(
  "backbone, addon",
  [("resnet_small", "bottleneck"), ("vgg11_bn", "regular"), ("densenet121", "regular")],
)
def test_a_network_comes_back_bit_for_bit(tmp_path, backbone, addon):
  model = ProtoPNet(backbone, 3, (0, 1, 1, 2, 2), 12, addon)
  variables = conftest.drawn_variables(model, 64)
  state = names.state_dict_of(model, variables)
  file = there_and_back(tmp_path / "new" / "net.pth", state)
  assert file.form == "a state dict, zip form" and file.attributes == {}
  assert list(file.state) == list(state)
  for name, array in state.items():
    assert bits(file.state[name]) == bits(array), name
  again = names.variables_from_state_dict(model, file.state)
  assert jax.tree.structure(again) == jax.tree.structure({**variables})
  same = jax.tree.map(lambda a, b: bits(np.asarray(a)) == bits(np.asarray(b)), again, {**variables})
  assert all(jax.tree.leaves(same))
  assert [path.name for path in (tmp_path / "new").iterdir()] == ["net.pth"]


def test_arrays_of_every_form(tmp_path):
  numbers = np.array([0.0, -0.0, 1e-45, 3.4e38, -1.5, np.pi], np.float32)
  state = {
    "transposed": numbers.reshape(2, 3).T,
    "a slice": np.tile(numbers, 4)[::3],
    "repeated": np.broadcast_to(numbers[3], (2, 2, 2)),
    "a single one": np.float32(2.5).reshape(()),
    "empty": np.zeros((3, 0, 2), np.float32),
    "whole": np.array([[2**62, -5]], np.int64),
    "name with ü, . and /": numbers,
  }
  found = there_and_back(tmp_path / "net.pth", state).state
  assert list(found) == list(state)
  for name, array in state.items():
    assert bits(found[name]) == bits(array), name


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int32, ">f4", bool])
def test_numbers_of_other_types_are_not_written(tmp_path, kind):
  state = {"good": np.zeros(2, np.float32), "bad": np.zeros(2, kind)}
  with pytest.raises(InputError, match=r"^bad is .*; a state dict is written of float32 and int64"):
    export.write_state_dict(tmp_path / "net.pth", state)
  assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(tmp_path):
  state = {"weight": np.zeros(2, np.float32)}
  with pytest.raises(InputError, match=r"cannot write .*; choose another place"):
    export.write_state_dict(tmp_path, state)
  assert not list(tmp_path.iterdir())


# --- what is read in


@pytest.fixture(scope="module")
def small(tiny):
  model, variables = tiny
  return model, variables, names.state_dict_of(model, variables)


@pytest.mark.parametrize("kind", [np.float64, np.float16])
def test_other_precisions_become_float32(small, kind):
  model, _, state = small
  given = {name: array.astype(kind) for name, array in state.items()}
  found = jax.tree.leaves(names.variables_from_state_dict(model, given))
  wanted = {name: array.astype(np.float32) for name, array in given.items()}
  wanted = jax.tree.leaves(names.variables_from_state_dict(model, wanted))
  for a, b in zip(found, wanted, strict=True):
    assert a.dtype == np.float32
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e39])
def test_numbers_that_are_not_finite_are_refused(small, value):
  model, _, state = small
  given = {name: array.astype(np.float64) for name, array in state.items()}
  given["features.bn1.running_var"][3] = value
  with pytest.raises(
    InputError, match=r"(?s)do not fit .*:\n  not finite: features.bn1.running_va"
  ):
    names.variables_from_state_dict(model, given)
