"""Our networks against PyTorch's layers, one by one and end to end, with weights that are drawn."""

import functools
import json
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import twin
from efficientnet_lite_pytorch import utils
from efficientnet_lite_pytorch.model import MBConvBlock
from flax.traverse_util import flatten_dict
from golden import weights

from jprotop.networks import efficientnet_lite
from jprotop.networks.densenet import DenseLayer, DenseNet
from jprotop.networks.efficientnet_lite import Block, BlockShape
from jprotop.networks.families import family_of, make_backbone
from jprotop.networks.layers import LayerOptions
from jprotop.networks.resnet import BasicBlock, Bottleneck
from jprotop.networks.vgg import VGG
from jprotop.prototypes.protopnet import AddOn, ProtoPNet
from jprotop.torch_io.names import variables_from_state_dict

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
REFERENCE = {  # classes, prototypes a class, depth and add-on of the golden state dicts
  "resnet18": (10, 5, 128, "regular"),
  "resnet34": (20, 4, 256, "regular"),
  "resnet50": (10, 5, 128, "bottleneck"),
  "vgg19": (10, 5, 128, "regular"),
  "vgg19_bn": (10, 5, 128, "bottleneck"),
  "densenet121": (10, 5, 128, "regular"),
}
OPTIONS = LayerOptions()
EVAL, TRAIN = (False, None), (True, None)  # train and mask
LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


# --- from one layout and one set of names to the other


def nchw(x):
  return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1)))


def nhwc(x):
  return np.moveaxis(x.detach().numpy(), 1, -1)


def values(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def drawn(module, seed=0):
  """The PyTorch module, all that it holds, running statistics too, drawn by name and seed."""
  state = {
    name: torch.from_numpy(np.asarray(weights.weight(name, tuple(x.shape), seed)))
    for name, x in module.state_dict().items()
  }
  module.load_state_dict(state)
  return module.eval()


def torch_name(path, state):
  """The PyTorch layer that stands for the Flax one at `path`."""
  lite = efficientnet_lite.torch_name(".".join(path) + ".weight").removesuffix(".weight")
  if f"{lite}.weight" in state:
    return lite
  name = ".".join(path).replace("downsample_conv", "downsample.0")
  name = name.replace("downsample_bn", "downsample.1").replace("_", ".")
  # VGG's layers and the add-on's are numbered in one list.
  return name if f"{name}.weight" in state else re.sub(r"\D", "", name)


def flax_variables(module, other, *inputs):
  """Variables of a Flax module with the values of its PyTorch twin."""
  state = {name: value.numpy() for name, value in other.state_dict().items()}

  def value(path, leaf):
    _, *layer, name = (part.key for part in path)
    found = state[f"{torch_name(layer, state)}.{LEAVES.get(name, name)}"]
    found = found.transpose(2, 3, 1, 0) if found.ndim == 4 else found
    assert found.shape == leaf.shape, path
    return jnp.array(found)  # a copy: PyTorch updates its statistics in place

  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))
  return jax.tree_util.tree_map_with_path(value, shapes)


# --- layer by layer


def assert_near(found, wanted, what, relative=1e-4):
  """Within a share of the largest value: rounding errors are of that size everywhere."""
  assert np.shape(found) == np.shape(wanted), what
  largest = np.abs(wanted).max()
  assert largest > 0, what
  error = np.abs(found - wanted).max() / largest
  assert error <= relative, (what, error)


def outputs_of_layers(other, x):
  """{name: output} of every convolution and norm, and the output of the whole."""
  found = {}

  def keep(name):
    return lambda _, __, out: found.__setitem__(name, nhwc(out).copy())

  for name, layer in other.named_modules():
    if isinstance(layer, torch.nn.Conv2d | torch.nn.BatchNorm2d):
      layer.register_forward_hook(keep(name))
  with torch.no_grad():
    return nhwc(other(nchw(x))), found


def assert_equal_layer_by_layer(module, other, x, *mode):
  """Outputs of all convolutions and norms, of the whole, and the running statistics after it."""
  variables = flax_variables(module, other, x, *mode)
  wanted, layers = outputs_of_layers(other.train(mode == TRAIN), x)
  collections = ["intermediates", "batch_stats"]
  apply = functools.partial(module.apply, capture_intermediates=True, mutable=collections)
  found, state = jax.jit(lambda variables: apply(variables, x, *mode))(variables)
  outputs = flatten_dict(state["intermediates"])
  for path in {path[:-1] for path in flatten_dict(variables["params"])}:
    name = torch_name(path, other.state_dict())
    assert_near(outputs[*path, "__call__"][0], layers.pop(name), name)
  assert not layers
  assert_near(found, wanted, "output")
  after = flatten_dict(flax_variables(module, other, x, *mode).get("batch_stats", {}))
  for path, statistic in flatten_dict(state.get("batch_stats", {})).items():
    assert_near(statistic, after[path], path)


BLOCKS = {
  "basic": (BasicBlock(64, 1, OPTIONS), twin.BasicBlock(64, 64)),
  "basic, downsampled": (BasicBlock(48, 2, OPTIONS), twin.BasicBlock(64, 48, 2)),
  "bottleneck": (Bottleneck(16, 1, OPTIONS), twin.Bottleneck(64, 16)),
  "bottleneck, widened": (Bottleneck(24, 1, OPTIONS), twin.Bottleneck(64, 24)),
  "bottleneck, downsampled": (Bottleneck(16, 2, OPTIONS), twin.Bottleneck(64, 16, 2)),
  "dense": (DenseLayer(12, OPTIONS), twin._DenseLayer(64, 12)),
}


@pytest.mark.parametrize("mode", [EVAL, TRAIN], ids=["eval", "train"])
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(name, mode):
  module, other = BLOCKS[name]
  assert_equal_layer_by_layer(module, drawn(other), values(3, 7, 10, 64), *mode)


@pytest.mark.parametrize("kind", ["regular", "bottleneck"])
def test_add_on(kind):
  other = drawn(twin.add_on(100, 24, kind))
  assert_equal_layer_by_layer(AddOn(24, kind, OPTIONS), other, values(2, 3, 4, 100))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_vgg_layers(batch_norm):
  sizes = (1, 2, 1, 1, 1)
  other = drawn(twin.VGG_features(sizes, batch_norm)).features
  assert_equal_layer_by_layer(VGG(sizes, batch_norm), other, values(2, 67, 40, 3), *EVAL)


@pytest.fixture(scope="module")
def dense():
  """A small DenseNet, and images that give its transitions odd grids: 19x24, 9x12."""
  other = drawn(twin.DenseNet_features(8, (2, 3, 2), 16)).features
  return DenseNet((2, 3, 2), growth=8, stem_features=16), other, values(2, 75, 93, 3)


@pytest.mark.parametrize("mode", [EVAL, TRAIN], ids=["eval", "train"])
def test_densenet_layers(dense, mode):
  module, other, x = dense
  assert_equal_layer_by_layer(module, drawn(other), x, *mode)


def lite_block(*numbers, channels):
  """A block of the package's."""
  size, stride, expansion, features = numbers
  arguments = utils.BlockArgs(1, size, stride, expansion, channels, features, None, True)
  settings = utils.efficientnet_lite()[1]
  return MBConvBlock(arguments, settings._replace(drop_connect_rate=0.0))


@pytest.mark.parametrize("mode", [EVAL, TRAIN], ids=["eval", "train"])
@pytest.mark.parametrize(
  ("numbers", "channels"),
  [((3, 1, 1, 16), 24), ((5, 2, 6, 16), 8), ((3, 2, 6, 8), 8), ((5, 1, 6, 8), 8)],
)
def test_blocks_of_efficientnet_lite(numbers, channels, mode):
  """Odd and even sizes, which SAME pads in different ways where the stride is 2."""
  module, x = Block(BlockShape(*numbers), OPTIONS), values(3, 15, 10, channels)
  assert_equal_layer_by_layer(module, drawn(lite_block(*numbers, channels=channels)), x, *mode)


@pytest.fixture(scope="module")
def lite():
  """EfficientNet-Lite0, and images whose sizes are odd on the way to a grid of 3 x 2."""
  other = drawn(twin.BACKBONES["efficientnet_lite0"]())
  return make_backbone("efficientnet_lite0"), other, values(2, 75, 50, 3)


@pytest.mark.parametrize("mode", [EVAL, TRAIN], ids=["eval", "train"])
def test_efficientnet_lite_layers(lite, mode):
  module, other, x = lite
  assert_equal_layer_by_layer(module, drawn(other), x, *mode)


@pytest.mark.parametrize("network", ["dense", "lite"])
def test_gradients_to_weights_and_pixels(network, request):
  module, other, x = request.getfixturevalue(network)
  other = drawn(other)
  variables = flax_variables(module, other, x, *EVAL)
  pixels = nchw(x).requires_grad_()
  out = other(pixels)
  cotangent = values(*nhwc(out).shape, seed=1)
  out.backward(nchw(cotangent))

  @jax.jit
  def gradients(params, x):
    def apply(params, x):
      return module.apply({**variables, "params": params}, x)

    return jax.vjp(apply, params, x)[1](cotangent)

  of_params, of_pixels = gradients(variables["params"], x)
  assert_near(of_pixels, nhwc(pixels.grad), "pixels")
  wanted = {name: parameter.grad for name, parameter in other.named_parameters()}
  for path, found in flatten_dict(of_params).items():
    name = torch_name(path[:-1], wanted)
    gradient = wanted.pop(f"{name}.{LEAVES.get(path[-1], path[-1])}").numpy()
    gradient = gradient.transpose(2, 3, 1, 0) if gradient.ndim == 4 else gradient
    assert_near(found, gradient, path)
  assert not wanted


# --- whole networks


@pytest.mark.parametrize(
  ("name", "depth", "addon", "similarity"),
  [
    ("resnet50", 64, "bottleneck", "log"),
    ("vgg11_bn", 16, "regular", "linear"),
    ("densenet121", 32, "regular", "log"),
    ("efficientnet_lite2", 32, "regular", "log"),
  ],
)
def test_whole_networks(name, depth, addon, similarity):
  other = drawn(twin.PPNet(name, 3, 2, depth, addon, similarity=similarity))
  model = ProtoPNet(name, 3, (0, 0, 1, 1, 2, 2), depth, addon, similarity)
  state = {key: value.numpy() for key, value in other.state_dict().items()}
  variables = variables_from_state_dict(model, state)
  images = np.random.default_rng(0).random((2, 64, 96, 3)).astype(np.float32)
  mean, std = map(np.float32, family_of(name).normalisation)
  normalised = nchw((images - mean) / std)
  with torch.no_grad():
    latent = other.latent(normalised)
    sq_dist = other.sq_dist(latent)
    logits, least = other(normalised)
  out = jax.jit(model.apply)(variables, images)
  assert nhwc(latent).std(axis=(0, 1, 2)).max() > 0.01  # else the comparison shows nothing
  assert_near(out.latent, nhwc(latent), "latent")
  assert_near(out.sq_dist, nhwc(sq_dist), "sq_dist")
  assert_near(out.sq_dist.min(axis=(1, 2)), least.numpy(), "least")
  assert_near(out.similarity_map, nhwc(other.similarity(sq_dist)), "similarity")
  assert_near(out.logits, logits.numpy(), "logits")


# --- the twin itself: what the reference's files hold


@pytest.mark.parametrize("name", REFERENCE)
def test_state_dicts_have_the_references_names_and_shapes(name):
  wanted = json.loads((GOLDEN / f"state_dict_{name}.json").read_text())
  with torch.device("meta"):  # shapes only
    state = twin.PPNet(name, *REFERENCE[name]).state_dict()
  assert {key: list(value.shape) for key, value in state.items()} == wanted


@pytest.mark.parametrize("package", ["", "src.models"])
@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize(
  ("name", "classes"),
  [
    ("resnet18", ["model.PPNet", "resnet_features.ResNet_features", "resnet_features.BasicBlock"]),
    ("vgg11", ["model.PPNet", "vgg_features.VGG_features"]),
    ("densenet121", ["densenet_features._DenseLayer", "densenet_features._Transition"]),
  ],
)
def test_whole_modules_are_saved_under_the_references_names(
  tmp_path, name, classes, new_format, package
):
  model = drawn(twin.PPNet(name, 2, 1, 4))
  path = tmp_path / "model.pth"
  with twin.reference_modules(package):
    torch.save(model, path, _use_new_zipfile_serialization=new_format)
    loaded = torch.load(path, weights_only=False)
  content = path.read_bytes()
  for kind in classes:
    module, _, kind = f"{package}.{kind}".strip(".").rpartition(".")
    assert f"c{module}\n{kind}\n".encode() in content  # as the pickle protocol 2 names a class
  assert module not in sys.modules
  assert loaded.prototype_class_identity.tolist() == [[1, 0], [0, 1]]
  assert loaded.prototype_shape == (2, 4, 1, 1)
  assert (loaded.epsilon, loaded.prototype_activation_function) == (1e-4, "log")
  after = loaded.state_dict()
  assert all(torch.equal(value, after[key]) for key, value in model.state_dict().items())
