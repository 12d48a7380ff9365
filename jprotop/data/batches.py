"""Batches {image, label, index} of host arrays; `parallel.pad` adds the mask to the last one."""

import collections
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jprotop.data.dataset import Split


def to_float(pixels: np.ndarray) -> np.ndarray:
  """uint8 to float32 in [0, 1]."""
  return pixels.astype(np.float32) / np.float32(255)


def in_order(split: Split, batch_size: int, indices: np.ndarray | None = None) -> Iterator[dict]:
  """Un-augmented crops in the order of the data set, or of `indices`."""
  indices = np.arange(len(split)) if indices is None else np.asarray(indices)
  for start in range(0, len(indices), batch_size):
    chunk = indices[start : start + batch_size]
    yield {
      "image": to_float(split.pixels[chunk]),
      "label": split.label[chunk].astype(np.int32),
      "index": chunk.astype(np.int32),
    }


class AugmentedEpochs:
  """Every image's augmented copies, shuffled anew in each epoch.

  The copies of an image are the same in every epoch, as in the reference, which writes them to
  disk; a set that is small enough is kept as a pixel file. `copies` = 0 means no augmentation:
  each image once, as it is.
  """

  def __init__(self, split: Split, *, copies: int, batch_size: int, seed: int):
    self.split, self.copies, self.batch_size, self.seed = split, copies, batch_size, seed
    self._stored = split.stored_copies(copies, seed) if copies else split.pixels

  @property
  def num_examples(self) -> int:
    return len(self.split) * max(self.copies, 1)

  @property
  def num_batches(self) -> int:
    return -(-self.num_examples // self.batch_size)

  def epoch(self, number: int) -> Iterator[dict]:
    """The batches of one epoch; a pure function of the seed and its number."""
    order = np.random.default_rng([self.seed, 2, number]).permutation(self.num_examples)
    chunks = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
    return prefetched(self._batch, chunks)

  def _batch(self, chunk: np.ndarray, pool: ThreadPoolExecutor) -> dict:
    images = chunk // max(self.copies, 1)
    if self._stored is not None:
      pixels = self._stored[chunk]
    else:
      draw = lambda j: self.split.augmented(j // self.copies, j % self.copies, self.seed)  # noqa: E731
      pixels = np.stack(list(pool.map(draw, chunk)))
    return {
      "image": to_float(pixels),
      "label": self.split.label[images].astype(np.int32),
      "index": images.astype(np.int32),
    }


def prefetched(make: Callable, items: list, ahead: int = 2) -> Iterator:
  """`make(item, pool)` for each item, in order, computed up to `ahead` items early."""
  with ThreadPoolExecutor(1) as conductor, ThreadPoolExecutor(os.cpu_count()) as pool:
    waiting = collections.deque()
    try:
      for item in items:
        waiting.append(conductor.submit(make, item, pool))
        if len(waiting) > ahead:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    finally:
      # A consumer that stops early must not wait for pictures that nobody will see.
      for future in waiting:
        future.cancel()
