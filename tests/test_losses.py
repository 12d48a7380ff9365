"""The loss of ProtoPNet against loops that a reader can check by eye."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jprotop.prototypes import losses

PROTOTYPE_CLASS = np.repeat(np.arange(3), 2)


def slow_cost(distances, label, *, own, depth=None):
  """min over the prototypes that are (not) of the image's class; with a depth D in the
  reference's form, D - max((D - m) * mask)."""
  costs = []
  for m, c in zip(distances, label):
    if depth is None:
      costs.append(min(d for d, k in zip(m, PROTOTYPE_CLASS) if (k == c) == own))
    else:
      costs.append(depth - max((depth - d) * ((k == c) == own) for d, k in zip(m, PROTOTYPE_CLASS)))
  return np.array(costs)


@pytest.mark.parametrize("depth", [None, 8.0])
@pytest.mark.parametrize(
  ("cost", "own"), [(losses.cluster_cost, True), (losses.separation_cost, False)]
)
def test_costs_equal_their_loops_also_above_the_latent_depth(cost, own, depth):
  rng = np.random.default_rng(0)
  distances = rng.uniform(0, 16, (40, 6)).astype(np.float32)  # about half exceed D = 8
  label = rng.integers(0, 3, 40)
  wanted = slow_cost(distances, label, own=own, depth=depth)
  if depth is not None:
    assert (wanted == depth).any() and (wanted < depth).any()
  found = cost(jnp.asarray(distances), jnp.asarray(label), jnp.asarray(PROTOTYPE_CLASS), cap=depth)
  np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def test_gradient_of_equal_distances_goes_to_the_first_and_is_none_above_the_cap():
  label, classes = jnp.array([1]), jnp.asarray(PROTOTYPE_CLASS)
  distances = jnp.array([[5.0, 3.0, 2.0, 2.0, 3.0, 4.0]])

  def gradient(cost, **options):
    gradient = jax.jit(jax.grad(lambda d: cost(d, label, classes, **options).sum()))
    return gradient(distances)[0].tolist()

  assert gradient(losses.cluster_cost) == [0, 0, 1, 0, 0, 0]
  assert gradient(losses.separation_cost) == [0, 1, 0, 0, 0, 0]
  assert gradient(losses.cluster_cost, cap=2.5) == [0, 0, 1, 0, 0, 0]
  assert gradient(losses.separation_cost, cap=2.5) == [0] * 6


def test_cross_entropy_of_known_odds():
  logits = jnp.log(jnp.array([[1.0, 3.0], [1.0, 1.0]]))
  found = losses.cross_entropy(logits, jnp.array([1, 0]))
  np.testing.assert_allclose(found, [-np.log(0.75), np.log(2)], rtol=1e-6)


def test_l1_counts_the_weights_to_other_classes_only():
  kernel = jnp.array([[1.0, -0.5], [9.0, 0.25], [0.125, -7.0]])  # prototypes of 0, 0 and 1
  found = losses.incorrect_class_l1(kernel, jnp.array([0, 0, 1]))
  assert found == pytest.approx(0.5 + 0.25 + 0.125)
