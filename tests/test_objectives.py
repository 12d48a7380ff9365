"""Eq. (2) by hand, and the two readings of cells that are in both sets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jprotop.attacks import objectives


def cells(*rows):
  return jnp.array([[c == "x" for c in row] for row in rows])[None]


MAP = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])[None]


@pytest.mark.parametrize(
  ("target", "source", "paper", "authors"),
  [
    # Apart: mean(1, 2) - mean(5, 6), by either rule.
    (("xx.", "..."), ("...", ".xx"), 1.5 - 5.5, 1.5 - 5.5),
    # Cell 2 is in both: mean(2, 3) - mean(1, 2), or its 2 counts 0 in a mean that is still over 2.
    ((".xx", "..."), ("xx.", "..."), 2.5 - 1.5, 2.5 - 0.5),
    # S_noisy everywhere: the reference's second term is gone.
    (("xxx", "xxx"), (".x.", ".x."), 3.5 - 3.5, 3.5),
  ],
)
def test_move_similarity_is_the_mean_over_s_noisy_minus_the_mean_over_s(
  target, source, paper, authors
):
  target, source = cells(*target), cells(*source)
  assert objectives.move_similarity(MAP, target, source).tolist() == pytest.approx([paper])
  found = objectives.move_similarity(MAP, target, source, drop_shared_cells=True)
  assert found.tolist() == pytest.approx([authors])


def test_each_image_has_its_own_sets_and_padding_rows_are_finite():
  maps = jnp.concatenate([MAP, MAP[:, ::-1], MAP])
  none = jnp.zeros((1, 2, 3), bool)
  target = jnp.concatenate([cells("x..", "..."), cells("..x", "..."), none])
  source = jnp.concatenate([cells("...", "..x"), cells("x..", "..."), none])
  found = objectives.move_similarity(maps, target, source)
  assert found.tolist() == [1 - 6, 6 - 4, 0]


def test_vanish_is_minus_the_activation():
  assert objectives.vanish(jnp.concatenate([MAP, 2 * MAP])).tolist() == [-6, -12]


def test_prototype_maps_are_each_images_own_slice_of_the_forward_pass(tiny):
  model, variables = tiny
  images = jnp.asarray(np.random.default_rng(0).random((3, 32, 32, 3)), jnp.float32)
  prototype = jnp.array([4, 0, 2])
  maps = jax.jit(objectives.prototype_maps, static_argnums=0)
  found = maps(model, variables, images, prototype)
  whole = np.asarray(jax.jit(model.apply)(variables, images).similarity_map)
  wanted = [whole[i, ..., p] for i, p in enumerate(prototype)]
  np.testing.assert_allclose(found, wanted, atol=1e-4)
