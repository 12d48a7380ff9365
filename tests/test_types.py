"""Annotations are checked at every call of a test: shapes, kinds of numbers, and plain types."""

import importlib
import pkgutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

import jprotop
from jprotop import regions
from jprotop.attacks.perturb import Views
from jprotop.attacks.pgd import State
from jprotop.prototypes import losses, similarity


def test_an_array_of_another_shape_is_an_error():
  logits = jnp.zeros((2, 3))
  losses.cross_entropy(logits, jnp.zeros(2, int))
  with pytest.raises(TypeCheckError, match="label"):
    losses.cross_entropy(logits, jnp.zeros(3, int))
  with pytest.raises(TypeCheckError, match="logits"):
    losses.cross_entropy(logits[0], jnp.zeros(2, int))


def test_numbers_of_another_kind_are_an_error():
  with pytest.raises(TypeCheckError, match="label"):
    losses.cross_entropy(jnp.zeros((2, 3)), jnp.zeros(2))
  with pytest.raises(TypeCheckError, match="mask"):
    regions.tight_box(np.ones((2, 2)))


def test_shapes_are_checked_where_a_function_is_traced():
  with pytest.raises(TypeCheckError, match="prototypes"):
    jax.jit(similarity.squared_distances)(jnp.zeros((2, 4)), jnp.zeros((3, 5)))


def test_what_is_returned_is_checked(monkeypatch):
  monkeypatch.setattr(losses, "_capped", lambda cost, cap: cost[:1])
  label, prototype_class = jnp.zeros(2, int), jnp.zeros(4, int)
  with pytest.raises(TypeCheckError, match="return value"):
    losses.cluster_cost(jnp.zeros((2, 4)), label, prototype_class)


def test_the_arrays_of_a_record_belong_together():
  fields = {
    "image": np.zeros((2, 8, 8, 3), np.float32),
    "similarity_map": np.zeros((2, 4, 4)),
    "activations": np.zeros((2, 6)),
  }
  Views(**fields, logits=np.zeros((2, 3)))
  with pytest.raises(TypeCheckError, match="logits"):
    Views(**fields, logits=np.zeros((3, 3)))


def test_a_pytree_may_hold_whatever_jax_puts_there():
  state = State(jnp.zeros((2, 8, 8, 3)))
  assert jax.tree.map(jnp.shape, state).x == (2, 8, 8, 3)


def test_no_module_was_imported_before_its_annotations_could_be_checked():
  for name in ("attacks", "data", "networks", "prototypes"):
    package = importlib.import_module(f"jprotop.{name}")
    for module in pkgutil.iter_modules(package.__path__, f"jprotop.{name}."):
      importlib.import_module(module.name)
  loaders = {
    name: type(module.__spec__.loader).__name__
    for name, module in sys.modules.items()
    if name.split(".")[0] == jprotop.__name__
  }
  assert {name for name, loader in loaders.items() if "axtyping" not in loader} == set()
