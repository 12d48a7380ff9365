"""Every network by name: its shapes, its precision, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import drawn_variables
from tiny_network import TINY

from jprotop.errors import InputError
from jprotop.networks.backbone import BackboneClassifier, normalise
from jprotop.networks.densenet import DenseLayer, average_pool
from jprotop.networks.families import BACKBONES, make_backbone
from jprotop.networks.layers import LayerOptions
from jprotop.prototypes import protopnet
from jprotop.prototypes.protopnet import AddOn, ProtoPNet, add_on_widths


def build(num_classes=3, **changes):
  return protopnet.make_model({**TINY, **changes}, num_classes)


def pictures(count=2, size=32, seed=0):
  return jnp.asarray(np.random.default_rng(seed).random((count, size, size, 3)), jnp.float32)


def parameter_shapes(model, size, channels=3):
  image = jnp.zeros((1, size, size, channels))
  return jax.eval_shape(model.init, jax.random.key(0), image)["params"]


@functools.cache
def shapes_of(backbone):
  """Shapes of what a backbone gives of an image of 224 pixels, and of its parameters."""
  init = make_backbone(backbone).init_with_output
  out, variables = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
  return out.shape, variables["params"]


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != TINY["backbone"]])
def test_every_backbone_has_the_grid_it_promises(name):
  cells = 14 if name == "resnet_small" else 7
  assert shapes_of(name)[0][:3] == (1, cells, cells)


def test_the_shapes_of_a_forward_pass():
  model = build(backbone="resnet18", num_classes=4, prototype_depth=16)
  out = jax.eval_shape(
    lambda x: model.init_with_output(jax.random.key(0), x)[0], jnp.zeros((2, 224, 224, 3))
  )
  assert out.latent.shape == (2, 7, 7, 16)
  assert out.sq_dist.shape == out.similarity_map.shape == (2, 7, 7, 8)
  assert out.activations.shape == (2, 8) and out.logits.shape == (2, 4)


@pytest.mark.parametrize(
  ("name", "published", "features"),  # torchvision's sizes count 1000 classes over the features
  [
    ("densenet121", 7_978_856, 1024),
    ("densenet161", 28_681_000, 2208),
    ("densenet169", 14_149_480, 1664),
    ("densenet201", 20_013_928, 1920),
  ],
)
def test_densenets_have_the_published_number_of_parameters(name, published, features):
  out, params = shapes_of(name)
  assert out[-1] == features
  classifier = (features + 1) * 1000
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) + classifier == published


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 6), (4, 7), (3, 5)])
def test_average_pool_leaves_out_an_odd_last_row_and_column(height, width):
  x = pictures(size=7)[:, :height, :width]
  out, vjp = jax.vjp(average_pool, x)
  assert out.shape == (2, height // 2, width // 2, 3)
  gradient = np.zeros(x.shape)
  weight = np.arange(1.0, out.size + 1, dtype=np.float32).reshape(out.shape)
  for i, j in np.ndindex(*out.shape[1:3]):
    cells = np.s_[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
    np.testing.assert_allclose(out[:, i, j], np.mean(x[cells], axis=(1, 2)), rtol=1e-6)
    gradient[cells] = weight[:, i : i + 1, j : j + 1] / 4
  assert (vjp(jnp.asarray(weight))[0] == gradient).all()


def test_a_dense_layer_passes_its_input_on_in_front_of_what_it_adds():
  layer = DenseLayer(4, LayerOptions())
  x = pictures(size=5)
  out, _ = jax.jit(lambda x: layer.init_with_output(jax.random.key(0), x, False, None))(x)
  assert out.shape == (2, 5, 5, 7) and (out[..., :3] == x).all() and out[..., 3:].any()


@pytest.mark.parametrize(
  ("backbone", "features", "depth", "widths"),
  [
    ("resnet18", 512, 128, [256, 256, 128, 128]),
    ("resnet18", 512, 100, [256, 256, 128, 128, 100, 100]),
    ("vgg11", 512, 512, [512, 512]),
    ("resnet50", 2048, 256, [1024, 1024, 512, 512, 256, 256]),
    ("densenet169", 1664, 512, [832, 832, 512, 512]),
  ],
)
def test_bottleneck_add_on_halves_in_pairs_down_to_the_depth(backbone, features, depth, widths):
  assert shapes_of(backbone)[0][-1] == features
  assert add_on_widths("bottleneck", features, depth) == widths
  add_on = AddOn(depth, "bottleneck", LayerOptions())
  params = parameter_shapes(add_on, 2, features)
  assert [params[f"conv{2 * i}"]["bias"].shape[0] for i in range(len(params))] == widths
  assert params["conv0"]["kernel"].shape[2] == features


def test_the_forward_pass_is_eq_1_its_maximum_and_the_last_layer(tiny):
  model, variables = tiny
  images = pictures(size=64)
  out = jax.jit(model.apply)(variables, images)
  assert out.latent.shape == (2, 4, 4, 8)
  assert out.latent.min() > 0 and out.latent.max() < 1  # ends in a sigmoid
  latent, prototypes = np.asarray(out.latent, np.float64), variables["params"]["prototypes"]
  distance = ((latent[..., None, :] - np.asarray(prototypes)) ** 2).sum(-1)
  np.testing.assert_allclose(out.sq_dist, distance, atol=1e-5)
  similarity = np.log((distance + 1) / (distance + 1e-4))
  np.testing.assert_allclose(out.similarity_map, similarity, atol=1e-3)
  np.testing.assert_allclose(out.activations, similarity.max((1, 2)), atol=1e-3)
  np.testing.assert_allclose(
    out.logits, np.asarray(out.activations) @ variables["params"]["last_layer"], atol=1e-5
  )
  # Images are normalised inside: ImageNet's mean is what the backbone sees as 0.
  mean = jnp.broadcast_to(jnp.array([0.485, 0.456, 0.406]), (1, 4, 4, 3))
  np.testing.assert_allclose(normalise(mean, model.backbone), 0, atol=1e-6)
  white = normalise(jnp.ones((3,)), model.backbone)
  np.testing.assert_allclose(white, [2.2489, 2.4286, 2.6400], atol=1e-4)


def test_efficientnet_lite_has_a_normalisation_of_its_own():
  pixels = np.array([[0, 127, 255]], np.float32)
  for name in ("efficientnet_lite0", "efficientnet_lite2"):
    np.testing.assert_allclose(normalise(pixels / 255, name), (pixels - 127) / 128, atol=1e-6)


def test_initial_weights_are_the_papers():
  model = build()

  @jax.jit
  def initial(key):  # only what is looked at: drawing all of it takes long to compile
    params = model.init(key, jnp.zeros((1, 32, 32, 3)))["params"]
    kernel = params["features"]["layer1_0"]["conv2"]["kernel"]  # 3x3 to 32: fan-out 288
    biases = [layer["bias"] for layer in params["add_on"].values()]
    return params["last_layer"], params["prototypes"], kernel, biases

  last_layer, prototypes, kernel, biases = initial(jax.random.key(1))
  own, other = 1.0, -0.5
  wanted = [[own, other, other]] * 2 + [[other, own, other]] * 2 + [[other, other, own]] * 2
  assert last_layer.tolist() == wanted
  assert prototypes.min() >= 0 and prototypes.max() < 1
  assert float(kernel.std()) == pytest.approx(np.sqrt(2 / 288), rel=0.02)
  assert abs(kernel).max() > 3 * kernel.std()  # an untruncated normal
  assert len(biases) == 2 and not any(bias.any() for bias in biases)


@pytest.mark.parametrize("form", ["plain", "fast"])
def test_bfloat16_runs_the_backbone_but_distances_stay_float32(tiny, form):
  _, variables = tiny
  model = build(dtype="bfloat16").clone(options=LayerOptions(dtype=jnp.bfloat16, forms=form))
  seen = {}

  def forward(variables, images):
    out, state = model.apply(
      variables, images, capture_intermediates=True, mutable=["intermediates"]
    )
    seen.update(state["intermediates"])
    return out

  out = jax.eval_shape(forward, variables, pictures())
  assert seen["features"]["__call__"][0].dtype == jnp.bfloat16
  assert seen["add_on"]["__call__"][0].dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype("float32")}
  params = jax.eval_shape(model.init, jax.random.key(0), pictures())["params"]
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_bfloat16_is_near_float32_and_exact_at_a_pushed_prototype(tiny):
  exact, variables = tiny
  model = build(dtype="bfloat16")
  images = pictures()
  wanted, out = (jax.jit(network.apply)(variables, images) for network in (exact, model))
  assert 0 < abs(out.latent - wanted.latent).max() < 0.05
  # Pushed onto the first latent patch: the first prototype's distance there is rounding only.
  prototypes = variables["params"]["prototypes"].at[0].set(out.latent[0, 0, 0])
  pushed = {**variables, "params": {**variables["params"], "prototypes": prototypes}}
  assert jax.jit(model.apply)(pushed, images).similarity_map[0, 0, 0, 0] > 8.9


@pytest.mark.parametrize(
  ("similarity", "distance"), [("log", "l2"), ("linear", "squared_l2"), ("linear", "l2")]
)
def test_other_similarities_have_finite_gradients_where_the_distance_is_0(
  tiny, similarity, distance
):
  _, variables = tiny
  model = build(similarity=similarity, distance=distance)
  latent = pictures(1, 2)[..., :1].repeat(8, -1)
  prototypes = variables["params"]["prototypes"].at[0].set(latent[0, 0, 0])
  pushed = {**variables, "params": {**variables["params"], "prototypes": prototypes}}

  def total(latent):
    out = model.apply(pushed, latent, method=ProtoPNet.from_latent)
    return jnp.sum(out.similarity_map), out

  gradient, out = jax.jit(jax.grad(total, has_aux=True))(latent)
  assert jnp.isfinite(gradient).all() and gradient.any()
  d = jnp.sqrt(out.sq_dist) if distance == "l2" else out.sq_dist
  wanted = -d if similarity == "linear" else jnp.log((d + 1) / (d + 1e-4))
  np.testing.assert_allclose(out.similarity_map, wanted, atol=1e-4)


def test_forward_mode_works_with_plain_forms(tiny):
  model, variables = tiny
  plain = model.clone(options=LayerOptions(forms="plain"))
  images, direction = pictures(1), pictures(1, seed=1) - 0.5

  def logit(network):
    return lambda x: network.apply(variables, x).logits[0, 0]

  _, slope = jax.jit(lambda x, v: jax.jvp(logit(plain), (x,), (v,)))(images, direction)
  gradient = jax.jit(jax.grad(logit(model.clone(options=LayerOptions(forms="fast")))))(images)
  assert slope == pytest.approx(float(jnp.vdot(gradient, direction)), rel=1e-3)


def test_backbone_classifier_averages_over_the_cells():
  classifier = BackboneClassifier(TINY["backbone"], 5)
  shapes = parameter_shapes(classifier, 32)
  assert shapes["classifier"]["kernel"].shape == (32, 5)
  out = jax.eval_shape(
    lambda x: classifier.init_with_output(jax.random.key(0), x)[0], jnp.zeros((2, 48, 48, 3))
  )
  assert out.shape == (2, 5)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"backbone": "resnet19"}, "backbone='resnet19'.*densenet121.*resnet18.*vgg19_bn"),
    ({"addon": "none"}, "addon='none'.*bottleneck, regular"),
    ({"similarity": "cosine"}, "similarity='cosine'.*linear, log"),
    ({"distance": "l1"}, "distance='l1'.*l2, squared_l2"),
    ({"dtype": "float16"}, "dtype='float16' must be float32 or bfloat16"),
    ({"prototypes_per_class": 0}, "prototypes_per_class=0 must be at least 1"),
    ({"prototype_depth": -1}, "prototype_depth=-1 must be at least 1"),
  ],
)
def test_errors_name_the_field_and_list_what_is_allowed(changes, message):
  with pytest.raises(InputError, match=message):
    build(**changes)


def test_variables_of_another_network_are_refused_with_a_list(tiny):
  model, variables = tiny
  protopnet.check_variables(model, variables, 32)
  params = dict(variables["params"])
  params["extra"] = params.pop("prototypes")
  params["last_layer"] = params["last_layer"][:, :2]
  with pytest.raises(InputError) as error:
    protopnet.check_variables(model, {**variables, "params": params}, 32)
  message = str(error.value)
  assert "missing: params/prototypes" in message
  assert "not used: params/extra" in message
  assert "params/last_layer: shape (6, 2) where (6, 3) is needed" in message


@pytest.mark.parametrize("backbone", ["vgg11", "resnet18"])
def test_drawn_variables_fit_the_other_networks(backbone):
  model = build(backbone=backbone, prototype_depth=4)
  protopnet.check_variables(model, drawn_variables(model, 32), 32)
