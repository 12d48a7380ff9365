"""Which network a state dict holds: from names and shapes, and from what a whole module says."""

import json
import pathlib

import numpy as np
import pytest
from tiny_network import TINY

from jprotop.errors import InputError
from jprotop.networks.families import BACKBONES
from jprotop.prototypes.protopnet import ProtoPNet
from jprotop.torch_io import names
from jprotop.torch_io.identify import identify
from jprotop.torch_io.torch_files import TorchFile

GOLDEN = pathlib.Path(__file__).parent / "golden"
REFERENCE = {  # prototypes, depth, classes and add-on of the golden state dicts
  "resnet18": (50, 128, 10, "regular"),
  "resnet34": (80, 256, 20, "regular"),
  "resnet50": (50, 128, 10, "bottleneck"),
  "vgg19": (50, 128, 10, "regular"),
  "vgg19_bn": (50, 128, 10, "bottleneck"),
  "densenet121": (50, 128, 10, "regular"),
}
EQUAL = "the equal share of 2 a class, in order"


def zeros(shape):
  """An array of any size in four bytes."""
  return np.broadcast_to(np.float32(0), shape)


def state_of(count=6, depth=5, classes=3, backbone="resnet_small", addon="regular"):
  """A state dict of the network's shapes, with the constant that ProtoPNet's have besides."""
  entries = names.entries_of(ProtoPNet(backbone, classes, (0,) * count, depth, addon))
  state = {name: zeros(entry.torch_shape) for name, entry in entries.items()}
  return {**state, "ones": zeros((count, depth, 1, 1))}


def found_in(state, attributes=None, **given):
  return identify(TorchFile(state, attributes or {}, "a state dict"), **given)


def refused(state, attributes=None, **given):
  with pytest.raises(InputError) as caught:
    found_in(state, attributes, **given)
  return str(caught.value)


def weights_for(labels, classes, own=1.2, other=-0.3):
  """A last layer [C, P] as training leaves it."""
  noise = 0.05 * np.random.default_rng(0).normal(size=(classes, len(labels)))
  mine = np.arange(classes)[:, None] == np.asarray(labels)
  return (np.where(mine, own, other) + noise).astype(np.float32)


# --- architecture


@pytest.mark.parametrize("addon", ["regular", "bottleneck"])
@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name != TINY["backbone"]])
def test_every_network_is_known_by_its_shapes(backbone, addon):
  found = found_in(state_of(21, 48, 7, backbone, addon))
  labels = tuple(np.repeat(np.arange(7), 3).tolist())
  assert found.model == ProtoPNet(backbone, 7, labels, 48, addon)


@pytest.mark.parametrize("name", REFERENCE)
def test_the_references_networks(name):
  shapes = json.loads((GOLDEN / f"state_dict_{name}.json").read_text())
  model = found_in({key: zeros(shape) for key, shape in shapes.items()}).model
  shown = (len(model.prototype_class), model.prototype_depth, model.num_classes, model.addon)
  assert (model.backbone, *shown) == (name, *REFERENCE[name])


@pytest.mark.parametrize(
  "count, depth, classes", [(1, 1, 1), (3, 128, 3), (14, 200, 2)], ids=["one", "equal", "deep"]
)
def test_unusual_numbers(count, depth, classes):
  model = found_in(state_of(count, depth, classes)).model
  # Where a backbone has no more channels than the prototypes, both add-ons are the same.
  assert (model.prototype_depth, model.num_classes, model.addon) == (depth, classes, "regular")
  assert model.prototype_class == tuple(np.repeat(np.arange(classes), count // classes).tolist())


def test_counters_of_batch_norm_may_be_there():
  state = state_of()
  layers = [name.removesuffix("running_var") for name in state if name.endswith("running_var")]
  state |= {f"{layer}num_batches_tracked": np.zeros((), np.int64) for layer in layers}
  assert len(layers) == 9 and found_in(state).model.backbone == "resnet_small"
  assert "not used: features.layer9.num_batches_tracked" in refused(
    {**state, "features.layer9.num_batches_tracked": np.zeros((), np.int64)}
  )


def test_a_block_too_many_is_an_error_that_lists_it():
  state = state_of(10, 16, 5, "resnet34")
  block = {n.replace("4.2.", "4.3."): a for n, a in state.items() if "layer4.2." in n}
  lines = refused({**state, **block}).splitlines()
  assert "the nearest is resnet34 with regular add-on layers" in lines[0]
  assert sorted(line.strip() for line in lines[1:]) == sorted(f"not used: {name}" for name in block)


def test_all_that_does_not_fit_is_one_error():
  """Also where what is missing is the first layer of the backbone."""
  state = state_of(10, 16, 5, "resnet18", "bottleneck")
  for name in ("features.layer1.0.conv1.weight", "add_on_layers.2.bias"):
    del state[name]
  state["features.bn1.bias"] = zeros((65,))
  state["last_layer.weight"] = zeros((5, 9))
  state["optimizer.lr"] = zeros(())
  lines = refused(state).splitlines()
  assert "the nearest is resnet18 with bottleneck add-on layers" in lines[0]
  assert [line.strip() for line in lines[1:]] == [
    "features.bn1.bias: shape (65,) where (64,) is needed",
    "last_layer.weight: shape (5, 9) where (5, 10) is needed",
    "missing: add_on_layers.2.bias",
    "missing: features.layer1.0.conv1.weight",
    "not used: optimizer.lr",
  ]


def test_another_add_on():
  state = state_of(6, 32, 3)
  state |= {"add_on_layers.4.weight": zeros((32, 32, 1, 1)), "add_on_layers.4.bias": zeros((32,))}
  lines = refused(state).splitlines()
  assert [line.strip() for line in lines[1:]] == [
    "not used: add_on_layers.4.bias",
    "not used: add_on_layers.4.weight",
  ]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite(value):
  state = state_of(7, 5, 3)
  state["last_layer.weight"] = np.full((3, 7), value)
  assert "not finite: last_layer.weight" in refused(state)


def test_what_is_no_protopnet():
  state = {n.removeprefix("features."): a for n, a in state_of().items() if "features" in n}
  message = refused(state)
  assert "this is no ProtoPNet: it has no prototype_vectors and no last_layer.weight, " in message
  assert "--config.train.init.backbone=FILE" in message


@pytest.mark.parametrize(
  "name, shape",
  [
    ("prototype_vectors", (6, 5, 2, 2)),
    ("prototype_vectors", (6, 5)),
    ("prototype_vectors", (0, 5, 1, 1)),
    ("prototype_vectors", (6, 0, 1, 1)),
    ("last_layer.weight", (3,)),
    ("last_layer.weight", (0, 6)),
  ],
)
def test_heads_of_other_kinds(name, shape):
  message = refused({**state_of(), name: zeros(shape)})
  assert f"{name} has shape {shape}" in message


# --- the class of each prototype


def test_an_equal_share_in_order_is_taken_for_granted():
  found = found_in(state_of())
  assert found.model.prototype_class == (0, 0, 1, 1, 2, 2)
  assert found.classes_from.startswith(EQUAL)
  labels = [0, 0, 1, 1, 2, 2]
  assert found_in({**state_of(), "last_layer.weight": weights_for(labels, 3)}).classes_from == EQUAL


def test_weights_that_say_otherwise_are_told():
  weights = weights_for([0, 0, 1, 0, 2, 2], 3)
  found = found_in({**state_of(), "last_layer.weight": weights})
  assert found.model.prototype_class == (0, 0, 1, 1, 2, 2)
  assert found.classes_from == f"{EQUAL}; 1 of 6 have their largest weight to another class"


@pytest.mark.parametrize("labels", [(0, 1, 1, 1, 2), (0, 0, 0, 0, 1, 2), (0, 0, 1, 3, 3)])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_pruned_networks_are_known_by_their_weights(labels, kind):
  classes = labels[-1] + 1
  state = state_of(len(labels), 5, classes)
  state["last_layer.weight"] = weights_for(labels, classes).astype(kind)
  found = found_in(state)
  assert found.model.prototype_class == labels
  assert found.classes_from == "the last layer's weights: the classes have unequal numbers"


@pytest.mark.parametrize(
  "weights",
  [np.zeros((3, 5)), weights_for([0, 2, 0, 1, 1], 3), weights_for([0, 1, 1, 1, 2], 3, other=0.9)],
  ids=["no say", "no order", "not clear"],
)
def test_unequal_numbers_that_the_weights_do_not_tell(weights):
  state = {**state_of(5), "last_layer.weight": weights.astype(np.float32)}
  message = refused(state)
  assert "does not tell which of 5 prototypes belong to which of 3 classes" in message
  assert "--prototype_class=FILE.npy" in message
  given = np.array([0, 2, 2, 1, 1])
  for form in (given, np.eye(3)[given]):
    found = found_in(state, prototype_class=form)
    assert found.model.prototype_class == (0, 2, 2, 1, 1)
    assert found.classes_from == "as given"


IDENTITY = np.eye(3, dtype=np.float32)[[0, 2, 2, 1, 1]]


def test_a_whole_module_knows_its_classes():
  attributes = {"prototype_class_identity": IDENTITY, "num_classes": 3}
  found = found_in(state_of(5), attributes)
  assert (found.model.prototype_class, found.classes_from) == ((0, 2, 2, 1, 1), "the module")
  same = found_in(state_of(5), attributes, prototype_class=np.array([0, 2, 2, 1, 1]))
  assert same == found
  message = refused(state_of(5), attributes, prototype_class=np.array([0, 1, 2, 1, 1]))
  assert "--prototype_class contradicts the module's prototype_class_identity" in message


@pytest.mark.parametrize(
  "identity",
  [IDENTITY[:4], IDENTITY[:, :2], 2 * IDENTITY, IDENTITY * 0, IDENTITY + 1 / 3, "one", 3],
)
def test_identities_that_give_no_prototype_one_class(identity):
  message = refused(state_of(5), {"prototype_class_identity": identity})
  assert "prototype_class_identity of shape" in message


@pytest.mark.parametrize(
  "given, message",
  [
    ([0, 1, 2, 1], r"int64 (4,); it must be whole numbers [5]"),
    ([0.0, 1.0, 2.0, 1.0, 1.0], "float64 (5,); it must be whole"),
    ([0, 1, 2, 3, 1], "classes from 0 to 2"),
    ([0, 1, -1, 1, 1], "classes from 0 to 2"),
    (2 * IDENTITY, "does not give each prototype one class"),
    (["a"] * 5, "it must be whole numbers [5]"),
  ],
)
def test_classes_that_cannot_be(given, message):
  assert message in refused(state_of(5), prototype_class=np.array(given))


# --- similarity


def test_similarity_comes_from_the_module_or_the_flag():
  linear, log = ({"prototype_activation_function": name} for name in ("linear", "log"))
  cases = (
    ({}, None, "log", "ProtoPNet's default; the file does not tell"),
    ({}, "linear", "linear", "as given"),
    (linear, None, "linear", "the module"),
    ({**log, "epsilon": 1e-4}, "log", "log", "the module"),
  )
  for attributes, given, wanted, source in cases:
    found = found_in(state_of(), attributes, similarity=given)
    assert (found.model.similarity, found.similarity_from) == (wanted, source)
  message = refused(state_of(), linear, similarity="log")
  assert "--similarity=log is given, but the module itself says 'linear'" in message


@pytest.mark.parametrize(
  "attributes, message",
  [
    ({"prototype_activation_function": "cosine"}, "'cosine'; jprotop knows linear, log"),
    ({"prototype_activation_function": ["log"]}, "type list'; jprotop knows"),
    ({"epsilon": 1e-3}, "epsilon=0.001 in its similarity; jprotop has 0.0001"),
    ({"epsilon": "small"}, "epsilon=small"),
    ({"epsilon": np.full(2, 1e-4)}, "epsilon=a value of type ndarray"),
  ],
)
def test_similarities_that_jprotop_has_not(attributes, message):
  assert message in refused(state_of(), attributes)
