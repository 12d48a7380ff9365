"""Digests of arrays: one flipped bit on a disk gives another one. `sealed` has those of JSON."""

import hashlib
import zlib
from typing import Any

import jax
import numpy as np


def digest_of_arrays(tree: Any, text: str = "") -> str:
  """Names arrays by their places in a tree, types, shapes and bytes, and a text beside them.

  Of the bytes it takes the CRC-32, as pixel files do: a disk's damage does not escape it, and
  SHA-256 costs 2 to 3 times as much.
  """
  digest = hashlib.sha256(text.encode())
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    array = np.ascontiguousarray(leaf)
    checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data)
    place = jax.tree_util.keystr(path)
    digest.update(f"{place} {array.dtype} {np.shape(leaf)} {checksum} ".encode())
  return digest.hexdigest()[:16]
