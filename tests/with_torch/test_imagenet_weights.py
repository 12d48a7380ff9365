"""The weights of ImageNet: our network against the PyTorch package, each reading the same file."""

import jax
import numpy as np
import pytest
import torch
import write_efficientnet_lite
from efficientnet_lite_pytorch import EfficientNet

from jprotop.networks.backbone import normalise
from jprotop.networks.families import make_backbone
from jprotop.torch_io import backbones

GOLDEN = write_efficientnet_lite.GOLDEN


@pytest.mark.parametrize(
  ("number", "size"), [(0, 224), (0, 97), (0, 130), (1, 240), (2, 260)], ids=str
)
def test_latents_of_the_packages_weights(number, size):
  """The package pads for images of the size that it is built for."""
  name = f"efficientnet_lite{number}"
  path = backbones.locate("package", name)
  other = EfficientNet.from_name(f"efficientnet-lite{number}", image_size=size).eval()
  other.load_state_dict(torch.load(path, weights_only=True))
  images = np.random.default_rng(size).random((2, size, size, 3), np.float32)
  images[:, size // 4 : size // 2] = 0.3  # Something else than noise.
  normalised = torch.from_numpy(((255 * images - 127) / 128).transpose(0, 3, 1, 2).copy())
  with torch.no_grad():
    wanted = other.extract_features(normalised).numpy().transpose(0, 2, 3, 1)
  variables = backbones.load(path, name)
  variables = {kind: tree["features"] for kind, tree in variables.items()}
  network = make_backbone(name)
  found = jax.jit(lambda v, x: network.apply(v, normalise(x, name)))(variables, images)
  assert found.shape == wanted.shape and wanted.max() > 1
  assert np.abs(found - wanted).max() <= 1e-4 * wanted.max()


def test_the_golden_figures_are_the_packages():
  found, _ = write_efficientnet_lite.figures()
  with np.load(GOLDEN / "efficientnet_lite0.npz") as file:
    assert set(file) == set(found)
    for name, wanted in file.items():
      np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-4)
