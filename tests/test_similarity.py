"""Eq. (1) and the distances it is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jprotop.prototypes import similarity


def test_squared_distances_equal_the_sum_over_every_pair():
  rng = np.random.default_rng(0)
  latent, prototypes = rng.random((2, 3, 4, 5)), rng.random((6, 5))
  wanted = np.zeros((2, 3, 4, 6))
  for n, y, x, p in np.ndindex(wanted.shape):
    wanted[n, y, x, p] = sum((latent[n, y, x, d] - prototypes[p, d]) ** 2 for d in range(5))
  found = similarity.squared_distances(jnp.asarray(latent), jnp.asarray(prototypes))
  np.testing.assert_allclose(found, wanted, atol=2e-6)
  found = similarity.exact_squared_distance(latent[0, 0, 0], prototypes[0])
  np.testing.assert_allclose(found, wanted[0, 0, 0, 0], rtol=1e-6)


def test_distances_are_float32_and_never_negative_whatever_comes_in():
  patches = jnp.asarray(np.random.default_rng(0).random((64, 256)), jnp.bfloat16)
  found = similarity.squared_distances(patches, patches)
  assert found.dtype == jnp.float32
  assert found.min() >= 0
  # bfloat16 products would leave about 1 here, and Eq. (1) would be 0.7 instead of 9.
  assert jnp.diag(found).max() < 1e-3
  exact = similarity.exact_squared_distance(patches, patches)
  assert exact.dtype == jnp.float32 and not exact.any()


def test_log_similarity_has_the_papers_values():
  distances = jnp.array([0.0, 1.0, 3.0])
  wanted = [np.log(1e4), np.log(2 / 1.0001), np.log(4 / 3.0001)]
  np.testing.assert_allclose(similarity.log_similarity(distances), wanted, rtol=1e-6)
  assert similarity.log_similarity(jnp.array(0.0)) == pytest.approx(9.2103, abs=1e-4)
  grid = jnp.linspace(0, 128, 1000)
  assert (jnp.diff(similarity.log_similarity(grid)) < 0).all()


@pytest.mark.parametrize(
  ("name", "distance", "wanted"),
  [
    ("log", "squared_l2", np.log((4 + 1) / (4 + 1e-4))),
    ("log", "l2", np.log((2 + 1) / (2 + 1e-4))),
    ("linear", "squared_l2", -4.0),
    ("linear", "l2", -2.0),
  ],
)
def test_named_similarities_of_squared_distance_four(name, distance, wanted):
  found = similarity.similarity_from_squared(jnp.array(4.0), similarity=name, distance=distance)
  assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("distance", similarity.DISTANCES)
@pytest.mark.parametrize("name", similarity.SIMILARITIES)
def test_a_patch_equal_to_its_prototype_has_a_finite_gradient(name, distance):
  prototypes = jnp.array([[0.5, 0.25], [0.5, 1.0]])

  def total(latent):
    sq_dist = similarity.squared_distances(latent, prototypes)
    return similarity.similarity_from_squared(sq_dist, similarity=name, distance=distance).sum()

  gradient = jax.jit(jax.grad(total))(jnp.array([0.5, 0.25]))
  assert jnp.isfinite(gradient).all()
  assert jnp.linalg.norm(gradient) > 0  # from the other prototype


def test_first_max_gives_the_maximum_and_its_gradient_to_the_first_of_equals():
  maps = jnp.array([[0.0, 7.0, 7.0], [7.0, 1.0, 2.0]]).reshape(1, 2, 3, 1)
  maps = jnp.concatenate([maps, maps[:, ::-1, ::-1]], axis=-1)
  assert similarity.first_max(maps).tolist() == [[7, 7]]
  gradient = jax.grad(lambda x: similarity.first_max(x).sum())(maps)[0]
  assert gradient[..., 0].tolist() == [[0, 1, 0], [0, 0, 0]]
  assert gradient[..., 1].tolist() == [[0, 0, 1], [0, 0, 0]]
