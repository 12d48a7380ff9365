"""One look at images: splits and arrays, what belongs to each and to all, files, and programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import drawn_variables
from miniature import drawn_split
from tiny_network import TINY

from jprotop.data import batches, device_jpeg
from jprotop.networks.backbone import BackboneClassifier
from jprotop.prototypes import selectors
from jprotop.prototypes.see import Network, see, see_in_batches

SIZE = 64


@pytest.fixture(scope="module")
def split():
  return drawn_split(7, SIZE)


@pytest.fixture(scope="module")
def images(split):
  return batches.to_float(split.pixels)


@pytest.fixture(scope="module")
def said(tiny, images):
  """What one forward pass says of all images, by itself."""
  return jax.device_get(jax.jit(tiny[0].apply)(tiny[1], images))


def close(found, wanted):
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_a_split_and_an_array_are_seen_alike_in_any_batch(tiny, split, images, said, batch_size):
  of_split = see(Network(*tiny), split, selectors.everything, batch_size=batch_size)
  of_array = see(Network(*tiny), images, selectors.everything, batch_size=batch_size)
  for name in ("logits", "activations", "similarity_map", "sq_dist"):
    close(of_split[name], getattr(said, name))
    np.testing.assert_array_equal(of_split[name], of_array[name])


def test_some_images_in_the_order_that_is_asked_for(tiny, split, images, said):
  indices = np.array([5, 0, 3])
  for source in (split, images):
    found = see(Network(*tiny), source, selectors.logits, batch_size=2, indices=indices)
    close(found, said.logits[indices])


def test_what_belongs_to_each_image_and_to_all(tiny, split, said):
  indices, own = np.array([6, 2, 4]), np.array([[1, 5], [0, 0], [3, 2]])
  options = {"batch_size": 2, "indices": indices}
  network = Network(*tiny)
  found = see(network, split, selectors.own_maps, each={"prototypes": own}, **options)
  for row, (i, prototypes) in enumerate(zip(indices, own)):
    close(
      found["similarity_maps"][row], np.moveaxis(said.similarity_map[i][..., prototypes], -1, 0)
    )
  chosen = np.array([4, 1, 1])
  found = see(network, split, selectors.chosen_maps, shared={"chosen": chosen}, **options)
  close(found, said.similarity_map[indices][..., chosen])
  parts = see_in_batches(
    network, split, selectors.chosen_maps, shared={"chosen": chosen}, **options
  )
  parts = list(parts)
  assert [len(part) for part in parts] == [2, 1]
  np.testing.assert_array_equal(np.concatenate(parts), found)


def test_cells_are_those_of_the_maxima_and_of_the_nearest_patches(tiny, images, said):
  cells = see(Network(*tiny), images, selectors.cells, batch_size=4)["cell"]
  shared = {"chosen": np.array([5, 0])}
  near = see(Network(*tiny), images, selectors.nearest, batch_size=4, shared=shared)
  for i, p in np.ndindex(cells.shape[:2]):
    found = said.similarity_map[i, ..., p]
    assert tuple(cells[i, p]) == np.unravel_index(found.argmax(), found.shape)
  for i, q in np.ndindex(near["sq_dist"].shape):
    found = said.sq_dist[i, ..., shared["chosen"][q]]
    assert tuple(near["cell"][i, q]) == np.unravel_index(found.argmin(), found.shape)
    close(near["sq_dist"][i, q], found.min())


def test_in_files_everything_is_seen_as_it_comes_back_from_them(tiny, images):
  network = Network(*tiny).in_files(20)
  assert network.in_files(None) == network and network.survive_jpeg == 20
  found = see(network, images, selectors.logits, batch_size=4)
  files = np.asarray(device_jpeg.round_trip(jnp.asarray(images), 20))
  close(found, see(Network(*tiny), files, selectors.logits, batch_size=4))
  assert np.abs(found - see(Network(*tiny), images, selectors.logits, batch_size=4)).max() > 1e-3


def test_logits_of_a_plain_classifier(images):
  model = BackboneClassifier(TINY["backbone"], 3)
  variables = drawn_variables(model, SIZE)
  found = see(Network(model, variables), images, selectors.logits, batch_size=4)
  close(found, jax.jit(model.apply)(variables, images))


TRACED = []


def counted(out, batch):
  TRACED.append(out.logits.shape)
  return out.logits


def test_a_second_look_compiles_nothing(tiny, split, images):
  see(Network(*tiny), images, counted, batch_size=4)
  first = len(TRACED)
  again = Network(tiny[0].clone(), jax.tree.map(np.asarray, tiny[1]))
  see(again, split, counted, batch_size=4, indices=np.arange(3))
  assert len(TRACED) == first > 0
  see(again, images, counted, batch_size=6)
  assert len(TRACED) > first
