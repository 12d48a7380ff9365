"""Heads: the maps and costs of ProtoPNet's, and one that somebody else brings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from miniature import drawn_split
from tiny_network import TINY

from jprotop.attacks import objectives
from jprotop.data import batches
from jprotop.errors import InputError
from jprotop.prototypes import explain, heads, losses, push, see
from jprotop.prototypes.protopnet import make_model
from jprotop.training import steps


@dataclasses.dataclass(frozen=True)
class CosineHead(heads.Head):
  """Knows no distance: what it gives as one must not matter for where patches are sought."""

  distance: str

  def maps(self, latent, prototypes):
    unit = [x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (latent, prototypes)]
    cosine = jnp.einsum("...d,pd->...p", *unit)
    return jnp.ones_like(cosine), cosine

  def nearness(self, out):
    return out.similarity_map


@pytest.fixture
def cosine(monkeypatch, tiny):
  """A network of another head, and variables."""
  monkeypatch.setattr(heads, "HEADS", dict(heads.HEADS))
  heads.register_head("cosine", CosineHead)
  return make_model({**TINY, "similarity": "cosine"}, 3), tiny[1]


@pytest.fixture(scope="module")
def images():
  return np.random.default_rng(0).random((7, 32, 32, 3)).astype(np.float32)


def slow_cosine(out, variables):
  """[N, h, w, P] in float64."""
  latent, prototypes = np.asarray(out.latent, float), np.asarray(variables["params"]["prototypes"])
  product = (latent[..., None, :] * prototypes).sum(-1)
  norms = np.linalg.norm(latent, axis=-1)[..., None] * np.linalg.norm(prototypes, axis=-1)
  return product / norms


@pytest.mark.parametrize("similarity", ["log", "linear"])
@pytest.mark.parametrize("distance", ["squared_l2", "l2"])
def test_a_map_of_ones_own_prototype_is_its_slice_of_all_maps(tiny, images, similarity, distance):
  model = make_model({**TINY, "similarity": similarity, "distance": distance}, 3)
  out = jax.jit(model.apply)(tiny[1], images)
  prototype = np.arange(7) % 6
  found = model.head.map_of(out.latent, tiny[1]["params"]["prototypes"][prototype])
  wanted = [out.similarity_map[i, ..., p] for i, p in enumerate(prototype)]
  np.testing.assert_allclose(found, wanted, atol=2e-3 if similarity == "log" else 1e-5)


def test_costs_are_those_of_the_least_distances(tiny, images):
  model, variables = tiny
  out, label = jax.jit(model.apply)(variables, images), jnp.arange(7) % 3
  classes = jnp.array(model.prototype_class)
  least = jnp.asarray(np.asarray(out.sq_dist).min((1, 2)))
  for cap in (None, 0.5):
    found = model.head.costs(out, label, classes, cap=cap)
    for cost, function in zip(found, (losses.cluster_cost, losses.separation_cost)):
      assert (cost == function(least, label, classes, cap=cap)).all()


def test_another_head_is_all_that_training_attacks_and_push_know(cosine, images):
  model, variables = cosine
  out = jax.jit(model.apply)(variables, images)
  wanted, label = slow_cosine(out, variables), np.arange(7) % 3
  np.testing.assert_allclose(out.similarity_map, wanted, atol=1e-5)
  # The attack's map.
  prototype_maps = jax.jit(objectives.prototype_maps, static_argnums=0)
  maps = prototype_maps(model, variables, images, jnp.full(7, 2))
  np.testing.assert_allclose(maps, wanted[..., 2], atol=1e-5)
  # Costs of the loss: of the greatest cosine.
  loss = steps.protopnet_losses(model, steps.LossWeights())
  batch = {"image": jnp.asarray(images), "label": jnp.asarray(label), "mask": jnp.ones(7)}
  loss = jax.jit(loss, static_argnums=3)
  values, _ = loss(variables["params"], variables["batch_stats"], batch, False)
  own = np.array(model.prototype_class) == label[:, None]
  highest = np.where(own, wanted.max((1, 2)), -np.inf).max(1)
  np.testing.assert_allclose(values["cluster_cost"], -highest, atol=1e-5)
  # The push.
  batches = [{"image": images, "label": label, "index": np.arange(7)}]
  pushed, provenance = push.push(model, variables, batches, image_size=32, batch_size=8)
  for p, own_class in enumerate(model.prototype_class):
    allowed = np.where((label == own_class)[:, None, None], wanted[..., p], -np.inf)
    place = np.unravel_index(allowed.argmax(), allowed.shape)
    assert (provenance.image[p], *provenance.cell[p]) == place
    np.testing.assert_allclose(pushed["params"]["prototypes"][p], out.latent[place], atol=1e-6)


def test_the_nearest_patches_are_those_of_the_head(cosine):
  model, variables = cosine
  split = drawn_split(7, 32)
  images = batches.to_float(split.pixels)
  wanted = slow_cosine(jax.jit(model.apply)(variables, images), variables)[..., [3, 1]]
  network = see.Network(model, variables)
  found = explain.nearest_cells(network, split, np.array([3, 1]), batch_size=8)
  flat = wanted.reshape(7, -1, 2)
  np.testing.assert_allclose(found["nearness"], flat.max(1), atol=1e-5)
  assert (found["cell"] == np.stack(np.divmod(flat.argmax(1), 2), -1)).all()
  order = explain.nearest_images(found["nearness"], 3)
  assert (order == np.argsort(-flat.max(1), axis=0, kind="stable")[:3].T).all()


def test_a_name_is_registered_once_and_listed_where_another_is_not_known(cosine):
  with pytest.raises(InputError, match="a similarity named cosine is registered already"):
    heads.register_head("cosine", CosineHead)
  with pytest.raises(InputError, match=r"similarity='dot' is not known.*cosine, linear, log"):
    make_model({**TINY, "similarity": "dot"}, 3)
