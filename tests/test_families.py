"""Backbones that somebody else brings: one file, registered, and used like the library's own."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_network import TINY

import jprotop
from configs import tiny as tiny_config
from jprotop.errors import InputError
from jprotop.networks import families
from jprotop.networks.backbone import normalise
from jprotop.prototypes.protopnet import make_model
from jprotop.torch_io import identify, names, torch_files, torchvision
from jprotop.training import loop

FILE = """
import flax.linen as nn
import jax

from jprotop.networks.families import Family, register
from jprotop.networks.layers import LayerOptions, conv


class Flat(nn.Module):
  options: LayerOptions = LayerOptions()

  @nn.compact
  def __call__(self, x, train=False, mask=None):
    return nn.relu(conv(6, 3, 8, options=self.options, name="conv")(x))


register(Family({"flat": Flat}))
"""


def load_file(path):
  spec = importlib.util.spec_from_file_location("flat", path)
  spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.fixture
def registry(monkeypatch):
  """What a test registers is gone after it."""
  monkeypatch.setattr(families, "FAMILIES", list(families.FAMILIES))
  monkeypatch.setattr(families, "BACKBONES", dict(families.BACKBONES))


@pytest.fixture
def flat(registry, tmp_path):
  """A backbone's file outside the library, imported."""
  path = tmp_path / "flat.py"
  path.write_text(FILE)
  load_file(path)
  return path


def test_a_file_outside_the_library_brings_a_backbone_that_trains(flat, tmp_path):
  config = tiny_config.get_config()
  config.train.model.backbone = "flat"
  config.data.cache = str(tmp_path / "cache")
  for phase in ("warm", "joint"):
    config.train[phase].epochs = 0
  loop.train(config.to_dict(), tmp_path / "run")
  model, variables, info = jprotop.load(tmp_path / "run")
  assert model.backbone == "flat" and info["finished"]
  assert jax.jit(model.apply)(variables, jnp.zeros((1, 64, 64, 3))).latent.shape == (1, 8, 8, 16)


def _no_network(**fields):
  raise AssertionError("nobody makes it")


def test_a_name_is_registered_once(flat):
  with pytest.raises(InputError, match="a backbone named flat is registered already"):
    load_file(flat)
  with pytest.raises(InputError, match="named resnet18, vgg19 is"):
    families.register(families.Family(dict.fromkeys(["resnet18", "other", "vgg19"], _no_network)))
  assert "other" not in families.BACKBONES


def test_weights_are_of_the_familys_networks():
  file = families.torchvision_file("resnet99-12345678.pth")
  with pytest.raises(InputError, match="given for resnet99, but the family has only other"):
    families.register(families.Family({"other": _no_network}, weights={"resnet99": file}))


def test_it_is_listed_where_another_name_is_not_known(flat):
  with pytest.raises(InputError, match=r"'flatter' is not known.*densenet121.*flat, resnet"):
    make_model({**TINY, "backbone": "flatter"}, 3)
  with pytest.raises(InputError, match="backbone='flatter' is not known"):
    families.family_of("flatter")


def test_it_may_have_a_normalisation_of_its_own(registry):
  halves = families.Normalisation((0.5,) * 3, (0.5,) * 3)
  families.register(families.Family({"mine": _no_network}, normalisation=halves))
  white = np.ones((1, 2, 2, 3), np.float32)
  assert (normalise(white, "mine") == 1).all() and (normalise(white, "resnet18") > 2).all()


def test_without_names_and_weights_it_is_not_imported_from_pytorch(flat, tmp_path):
  model = make_model({**TINY, "backbone": "flat"}, 3)
  for read in (
    lambda: names.entries_of(model),
    lambda: names.backbone_from_state_dict("flat", {}),
    lambda: names.state_dict_of(model, {}),
  ):
    with pytest.raises(InputError, match="backbone='flat' cannot be imported from PyTorch"):
      read()
  with pytest.raises(
    InputError, match=r"no ImageNet weights for train.model.backbone='flat', only for"
  ):
    torchvision.weights_file("flat", tmp_path)


def test_with_names_it_is_found_in_a_checkpoint(flat):
  """Names of its own: `stem.0` is what is `conv` here."""
  constructor = families.BACKBONES.pop("flat")
  families.FAMILIES.pop()
  flat_names = families.Names(lambda name: name.replace("conv.", "stem.0."), mark="stem")
  families.register(families.Family({"flat": constructor}, names=flat_names))
  model = make_model({**TINY, "backbone": "flat"}, 3)
  variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  state = names.state_dict_of(model, variables)
  assert state["features.stem.0.weight"].shape == (6, 3, 3, 3)
  found = identify.identify(torch_files.TorchFile(state, {}, "a state dict"))
  assert found.model == model
  again = names.variables_from_state_dict(found.model, state)
  jax.tree.map(np.testing.assert_array_equal, again["params"], variables["params"])
