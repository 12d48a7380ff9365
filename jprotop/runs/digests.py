"""Digests of arrays: one flipped bit on a disk gives another one. `sealed` has those of JSON."""

import hashlib
from typing import Any

import jax
import numpy as np


def digest_of_arrays(tree: Any, text: str = "") -> str:
  """Names arrays by their places in a tree, types, shapes and bytes, and a text beside them."""
  digest = hashlib.sha256(text.encode())
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    array = np.ascontiguousarray(leaf)
    digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {np.shape(leaf)} ".encode())
    digest.update(array.reshape(-1).view(np.uint8))
  return digest.hexdigest()[:16]
