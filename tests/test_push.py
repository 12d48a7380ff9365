"""Push: the nearest patch of the own class, whatever the batches and devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from single_device import one_device

from jprotop import regions, statistics
from jprotop.errors import InputError
from jprotop.prototypes import push, similarity

PROTOTYPE_CLASS = np.array([0, 0, 1, 2])
GRID, DEPTH = (2, 3), 2
nearest_in_batch, merge = jax.jit(push.nearest_in_batch), jax.jit(push.merge)


def drawn(count, seed):
  """Latent patches and prototypes of few values, so that equal distances abound."""
  rng = np.random.default_rng(seed)
  latent = rng.integers(0, 3, (count, *GRID, DEPTH)).astype(np.float32)
  prototypes = rng.integers(0, 3, (4, DEPTH)).astype(np.float32)
  label = rng.integers(0, 3, count)
  mask = (rng.random(count) < 0.8).astype(np.float32)
  return latent, prototypes, label, mask


def searched(latent, prototypes, label, mask, first=0):
  """`nearest_in_batch` of one batch whose images are numbered from `first`."""
  sq_dist = ((latent[..., None, :] - prototypes) ** 2).sum(-1)
  image = np.arange(first, first + len(latent))
  arrays = (latent, -sq_dist, -sq_dist, PROTOTYPE_CLASS, label, image, mask)
  return nearest_in_batch(*(jnp.asarray(a) for a in arrays))


def slow_search(latent, prototypes, label, mask):
  """(distance, image, row, column) of each prototype: the first smallest in reading order."""
  best = [(np.inf, -1, 0, 0)] * len(prototypes)
  for p, n in np.ndindex(len(prototypes), len(latent)):
    if label[n] == PROTOTYPE_CLASS[p] and mask[n]:
      for row, column in np.ndindex(GRID):
        distance = sum((latent[n, row, column, d] - prototypes[p, d]) ** 2 for d in range(DEPTH))
        if distance < best[p][0]:
          best[p] = (distance, n, row, column)
  return best


def places(found):
  return [
    (-float(near), int(i), int(c[0]), int(c[1]))
    for near, i, c in zip(found.nearness, found.image, found.cell)
  ]


def assert_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_any_split_into_batches_finds_what_the_loop_finds(seed):
  """Ties go to the first image, then row-major; masked images and other classes do not count."""
  latent, prototypes, label, mask = drawn(6, seed)
  wanted = slow_search(latent, prototypes, label, mask)
  for sizes in ((6,), (3, 3), (2, 2, 2)):
    found = push.nothing_found(4, GRID, DEPTH)
    for first, size in zip(np.cumsum((0, *sizes[:-1])), sizes):
      part = slice(first, first + size)
      batch = searched(latent[part], prototypes, label[part], mask[part], first)
      found = merge(found, batch)
    found = jax.device_get(found)
    assert places(found) == wanted
    for p, (distance, image, row, column) in enumerate(wanted):
      if np.isfinite(distance):
        assert (found.patch[p] == latent[image, row, column]).all()
        own = -((latent[image] - prototypes[p]) ** 2).sum(-1)
        assert (found.similarity_map[p] == own).all()


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_merge_does_not_mind_order_or_grouping(seed):
  latent, prototypes, label, mask = drawn(6, seed)
  a, b, c = (
    searched(latent[i : i + 2], prototypes, label[i : i + 2], mask[i : i + 2], i) for i in (0, 2, 4)
  )
  # What was found in no image holds an arbitrary place; the empty start settles it.
  nothing = push.nothing_found(4, GRID, DEPTH)
  a, b, c = (merge(nothing, x) for x in (a, b, c))
  whole = merge(merge(a, b), c)
  assert_same(merge(a, merge(b, c)), whole)
  assert_same(merge(c, merge(b, a)), whole)
  assert_same(merge(whole, whole), whole)
  assert_same(merge(whole, nothing), whole)


# --- through the network, on two devices


def batches(images, label, size):
  for i in range(0, len(images), size):
    part = slice(i, i + size)
    yield {"image": images[part], "label": label[part], "index": np.arange(len(images))[part]}


@pytest.fixture(scope="module")
def training_set():
  """Nine pictures of three classes, all different."""
  images = np.random.default_rng(3).random((9, 64, 64, 3)).astype(np.float32)
  return images, np.array([0, 1, 2, 2, 1, 0, 0, 1, 2])


@pytest.fixture(scope="module")
def pushed(tiny, training_set):
  model, variables = tiny
  return push.push(model, variables, batches(*training_set, 4), image_size=64, batch_size=4)


def test_prototypes_become_the_nearest_patches_of_their_class(tiny, training_set, pushed):
  model, variables = tiny
  images, label = training_set
  out = jax.device_get(jax.jit(model.apply)(variables, images))
  new, provenance = pushed
  prototypes = np.asarray(variables["params"]["prototypes"])
  assert provenance.num_distinct == len({*zip(provenance.image, map(tuple, provenance.cell))})
  for p, own_class in enumerate(model.prototype_class):
    distance = ((out.latent - prototypes[p]) ** 2).sum(-1)
    distance[label != own_class] = np.inf
    place = np.unravel_index(distance.argmin(), distance.shape)
    assert (provenance.image[p], *provenance.cell[p]) == place
    assert provenance.sq_dist[p] == pytest.approx(distance[place], rel=1e-4)
    vector = new["params"]["prototypes"][p]
    np.testing.assert_allclose(vector, out.latent[place], atol=1e-6)
    box = regions.high_activation_box(out.similarity_map[place[0], ..., p], 64, 64)
    assert np.abs(np.subtract(provenance.box[p], box)).max() <= 1
  others = {k: v for k, v in new["params"].items() if k != "prototypes"}
  assert_same(others, {k: v for k, v in variables["params"].items() if k != "prototypes"})
  assert_same(new["batch_stats"], variables["batch_stats"])


def test_a_pushed_prototype_scores_9_21_on_its_source(tiny, training_set, pushed):
  model, _ = tiny
  images, _ = training_set
  variables, provenance = pushed
  out = jax.device_get(jax.jit(model.apply)(variables, images))
  for p, (image, (row, column)) in enumerate(zip(provenance.image, provenance.cell)):
    # The expanded square leaves about 1e-5 where 0 should be; direct subtraction does not.
    assert out.similarity_map[image, row, column, p] >= 8.9
    patch, prototype = out.latent[image, row, column], variables["params"]["prototypes"][p]
    exact = similarity.exact_squared_distance(jnp.asarray(patch), prototype)
    assert similarity.log_similarity(exact) == pytest.approx(np.log(1e4), abs=1e-3)


def test_batch_size_and_devices_do_not_matter(tiny, training_set, pushed):
  model, variables = tiny
  run = functools.partial(push.push, model, variables, image_size=64)
  _, wanted = pushed
  _, whole = run(batches(*training_set, 9), batch_size=10)
  with one_device():
    _, alone = run(batches(*training_set, 3), batch_size=3)
  for found in (whole, alone):
    assert (found.image == wanted.image).all()
    assert (found.cell == wanted.cell).all()
    assert np.abs(found.box - wanted.box).max() <= 1


def test_equal_pictures_give_the_prototype_to_the_first(tiny, training_set):
  model, variables = tiny
  images, _ = training_set
  twice = np.concatenate([images[:2], images[2:4], images[:2], images[2:4]])
  labels = np.tile([0, 1, 2, 2], 2)
  _, provenance = push.push(
    model, variables, batches(twice, labels, 4), image_size=64, batch_size=4
  )
  assert provenance.image.max() < 4


def test_a_class_without_images_is_an_input_error(tiny, training_set):
  model, variables = tiny
  images, label = training_set
  with pytest.raises(InputError, match=r"classes \[1\] have prototypes but no training image"):
    push.push(
      model, variables, batches(images[label != 1], label[label != 1], 4), image_size=64,
      batch_size=4,
    )  # fmt: skip


def test_bfloat16_harms_neither_the_choice_nor_the_similarities(tiny, training_set, pushed):
  """The backbone in bfloat16, distances in float32: a patch chosen so is as near, but for rounding,
  as the one that float32 chooses, and similarities keep their order."""
  model, variables = tiny
  images, label = training_set
  half = model.clone(options=dataclasses.replace(model.options, dtype=jnp.bfloat16))
  exact = jax.device_get(jax.jit(model.apply)(variables, images))
  _, found = push.push(half, variables, batches(images, label, 4), image_size=64, batch_size=4)
  _, wanted = pushed
  p = np.arange(len(model.prototype_class))
  chosen = exact.sq_dist[found.image, found.cell[:, 0], found.cell[:, 1], p]
  best = exact.sq_dist[wanted.image, wanted.cell[:, 0], wanted.cell[:, 1], p]
  assert (chosen - best).max() <= 0.02 * best.max()
  rounded = jax.device_get(jax.jit(half.apply)(variables, images))
  assert np.abs(rounded.similarity_map - exact.similarity_map).max() < 0.05
  order = statistics.rank_correlation(rounded.activations.T, exact.activations.T)
  assert order.min() > 0.8 and order.mean() > 0.9  # of the nine images, for each prototype
