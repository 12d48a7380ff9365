"""Files of PyTorch become runs with the reference's figures, and runs become files of PyTorch."""

import json
import pathlib

import conftest
import jax
import numpy as np
import pytest
import torch
import twin
from golden import weights

import jprotop
from jprotop.networks.families import IMAGENET
from jprotop.prototypes.protopnet import ProtoPNet
from jprotop.runs import config as base
from jprotop.torch_io import export, names
from jprotop.training import importing

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
# How networks were saved: as what, in the present form or in that of before torch 1.6.
FORMS = {
  "state dict": (lambda net: net.state_dict(), True),
  "old state dict": (lambda net: net.state_dict(), False),
  "of a DataParallel": (lambda net: torch.nn.DataParallel(net).state_dict(), True),
  "training checkpoint": (lambda net: {"epoch": 9, "state_dict": net.state_dict()}, False),
  "module": (lambda net: net, True),
  "old module": (lambda net: net, False),
  "DataParallel": (torch.nn.DataParallel, True),
  "old DataParallel": (torch.nn.DataParallel, False),
}
OTHERS = {  # the golden state dicts without figures, and their add-ons
  "resnet34": "regular",
  "resnet50": "bottleneck",
  "vgg19_bn": "bottleneck",
  "densenet121": "regular",
}


def save(path, network, form):
  what, new_format = FORMS[form]
  with twin.reference_modules():
    torch.save(what(network), path, _use_new_zipfile_serialization=new_format)
  return path


def imported(path, workdir):
  """(model, variables, info) of the run that a file becomes."""
  importing.import_checkpoint(path, workdir, base.get_config().to_dict())
  return jprotop.load(workdir)


def drawn_state(shapes, seed):
  arrays = {name: weights.weight(name, tuple(shape), seed) for name, shape in shapes.items()}
  return {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}


def assert_same(run, state):
  """All arrays of the run's network, each as the state dict has it, bit for bit."""
  found = names.state_dict_of(*run[:2])
  for name, tensor in state.items():
    array = np.asarray(tensor)
    assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
    np.testing.assert_array_equal(found[name], array, err_msg=name)
  assert found.keys() == state.keys()


# --- the reference's figures


@pytest.fixture(scope="module")
def golden():
  """(figures, network of PyTorch) by architecture."""

  def build(name):
    if name not in made:
      with np.load(GOLDEN / f"{name}.npz") as file:
        figures = dict(file)
      shapes = json.loads((GOLDEN / f"state_dict_{name}.json").read_text())
      state = drawn_state(shapes, int(figures["seed"]))
      state["prototype_vectors"] = torch.from_numpy(figures["prototype_vectors"])[:, :, None, None]
      classes, depth = int(figures["classes"]), int(figures["channels"])
      network = twin.PPNet(name, classes, int(figures["per"]), depth)
      network.load_state_dict(state)
      made[name] = figures, network.eval()
    return made[name]

  made = {}
  return build


@pytest.mark.parametrize("name, form", [("resnet18", "old module"), ("vgg19", "state dict")])
def test_an_imported_network_gives_the_references_figures(golden, tmp_path, name, form):
  figures, network = golden(name)
  run = imported(save(tmp_path / "net.pth", network, form), tmp_path / "run")
  images = weights.images(4, int(figures["seed"]))
  out = jax.jit(run[0].apply)(run[1], images)
  for key in ("latent", "sq_dist", "logits"):
    np.testing.assert_allclose(getattr(out, key), figures[key], rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(out.sq_dist.min((1, 2)), figures["min_sq_dist"], rtol=1e-3, atol=1e-4)

  exported = tmp_path / "exported.pth"
  export.write_state_dict(exported, names.state_dict_of(*run[:2]))
  again = twin.PPNet(name, *(int(figures[key]) for key in ("classes", "per", "channels")))
  again.load_state_dict(torch.load(exported, weights_only=True), strict=True)
  normalised = (images - np.float32(IMAGENET.mean)) / np.float32(IMAGENET.std)
  with torch.no_grad():
    logits, _ = again.eval()(torch.from_numpy(normalised.transpose(0, 3, 1, 2)))
  np.testing.assert_allclose(out.logits, logits.numpy(), rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(logits.numpy(), figures["logits"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_arrays(golden, tmp_path, form):
  _, network = golden("resnet18")
  run = imported(save(tmp_path / "net.pth", network, form), tmp_path / "run")
  assert_same(run, network.state_dict())
  model, _, info = run
  assert model.prototype_class == tuple(np.repeat(np.arange(10), 5).tolist())
  of_module = not isinstance(FORMS[form][0](network), dict)
  sources = [info["imported"][key] for key in ("classes_from", "similarity_from")]
  assert [source == "the module" for source in sources] == [of_module] * 2


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_networks_of_the_reference_are_read_completely(tmp_path, name):
  shapes = json.loads((GOLDEN / f"state_dict_{name}.json").read_text())
  state = drawn_state(shapes, 1)
  torch.save(state, tmp_path / "net.pth")
  run = imported(tmp_path / "net.pth", tmp_path / "run")
  count, depth = shapes["prototype_vectors"][:2]
  model = run[0]
  assert (model.backbone, model.addon) == (name, OTHERS[name])
  assert (len(model.prototype_class), model.prototype_depth) == (count, depth)
  assert_same(run, state)


@pytest.mark.parametrize("package", ["", "src.models"])
def test_a_pruned_module_tells_its_classes_similarity_and_image_size(tmp_path, package):
  network = twin.PPNet("resnet18", 3, 4, 20, "bottleneck", similarity="linear", img_size=96)
  kept = [0, 1, 2, 4, 9, 11]
  for name in ("prototype_vectors", "ones"):  # as the reference prunes
    setattr(network, name, torch.nn.Parameter(getattr(network, name).data[kept]))
  network.last_layer.weight.data = network.last_layer.weight.data[:, kept]
  network.prototype_class_identity = network.prototype_class_identity[kept]
  with twin.reference_modules(package):
    torch.save(network, tmp_path / "net.pth")
  run = imported(tmp_path / "net.pth", tmp_path / "run")
  model, _, info = run
  assert model == ProtoPNet("resnet18", 3, (0, 0, 0, 1, 2, 2), 20, "bottleneck", "linear")
  assert info["config"]["train"]["data"]["image_size"] == 96
  assert_same(run, network.state_dict())


# --- and back


@pytest.mark.parametrize(
  "name, addon",
  [("resnet50_inat", "regular"), ("vgg11_bn", "bottleneck"), ("densenet121", "regular")],
)
def test_pytorch_opens_what_is_exported(tmp_path, name, addon):
  model = ProtoPNet(name, 2, (0, 0, 1, 1), 24, addon)
  state = names.state_dict_of(model, conftest.drawn_variables(model, 64))
  export.write_state_dict(tmp_path / "net.pth", state)
  network = twin.PPNet(name, 2, 2, 24, addon)
  loaded = torch.load(tmp_path / "net.pth", weights_only=True)
  network.load_state_dict(loaded, strict=True)
  for key, tensor in network.state_dict().items():
    np.testing.assert_array_equal(tensor.numpy(), state[key], err_msg=key)
