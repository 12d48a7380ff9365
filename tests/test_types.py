"""Annotations are checked at every call of a test: shapes, kinds of numbers, and plain types."""

import ast
import importlib

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from conftest import CHECKED
from jaxtyping import TypeCheckError
from test_imports import LIBRARY, name_of, syntax_tree

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


@pytest.mark.parametrize("name", CHECKED)
def test_no_room_was_imported_before_its_annotations_could_be_checked(name):
  assert "Jaxtyping" in type(importlib.import_module(name).__spec__.loader).__name__


def bare_arrays(annotation):
  """The arrays in an annotation whose shape it does not say."""
  if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) in dir(jaxtyping):
    return []
  if ast.unparse(annotation) in ("np.ndarray", "jax.Array", "Array"):
    return [ast.unparse(annotation)]
  # A dictionary's arrays may be of several shapes, which its docstring says.
  if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) in ("dict", "Mapping"):
    return []
  return [name for child in ast.iter_child_nodes(annotation) for name in bare_arrays(child)]


def annotations(path):
  """(where, annotation) of all parameters, results and fields that are public."""
  for node in ast.walk(syntax_tree(path)):
    if isinstance(node, ast.AnnAssign):
      yield f"{name_of(path)}:{node.lineno}", node.annotation
    if isinstance(node, ast.FunctionDef) and (node.name == "__call__" or node.name[0] != "_"):
      arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
      found = [node.returns, *(argument.annotation for argument in arguments)]
      yield from ((f"{name_of(path)}:{node.name}", a) for a in found if a is not None)


def test_public_functions_and_fields_say_the_shapes_of_their_arrays():
  # What has any shape is Shaped[np.ndarray, "..."].
  said = [(where, annotation) for path in LIBRARY for where, annotation in annotations(path)]
  assert len(said) > 1000
  assert [f"{where}: {bare_arrays(a)}" for where, a in said if bare_arrays(a)] == []
