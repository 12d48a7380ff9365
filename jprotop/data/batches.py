"""Batches {image, label, index} of host arrays, as `parallel.place` takes them to the devices.

Images are uint8 [N, S, S, 3]; they become float32 in [0, 1] there.

Training batches also have `key`, uint32 [N, 2]: a raw random key for each image of each epoch.
"""

import collections
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from jprotop.data import device_augment
from jprotop.data.alterations import Scheme
from jprotop.data.dataset import Split


def to_float(pixels: np.ndarray) -> np.ndarray:
  """uint8 to float32 in [0, 1]; the device's way to the same numbers is `parallel.place`."""
  return pixels.astype(np.float32) / np.float32(255)


def in_order(split: Split, batch_size: int, indices: np.ndarray | None = None) -> Iterator[dict]:
  """Un-augmented crops in the order of the data set, or of `indices`."""
  indices = np.arange(len(split)) if indices is None else np.asarray(indices)
  for start in range(0, len(indices), batch_size):
    chunk = indices[start : start + batch_size]
    yield {
      "image": split.pixels[chunk],
      "label": split.label[chunk].astype(np.int32),
      "index": chunk.astype(np.int32),
    }


class AugmentedEpochs:
  """Every image's augmented copies, shuffled anew in each epoch.

  The copies of an image are the same in every epoch, as in the reference, which writes them to
  disk; a set that is small enough is kept as a pixel file. `copies` = 0 means no augmentation:
  each image once, as it is.

  With a `compression` (App. F.2) each copy is JPEG compressed with its `probability`, drawn anew
  each time it is seen.
  """

  def __init__(
    self,
    split: Split,
    *,
    copies: int,
    batch_size: int,
    seed: int,
    compression: Scheme | None = None,
    probability: float = 0.0,
  ):
    self.copies, self.batch_size, self.seed = copies, batch_size, seed
    self.label, self.probability = split.label, probability
    # As they are, and compressed: which of the two is seen is a matter of the coin.
    self._splits = [split] + ([split.altered(compression)] if compression else [])
    self._stored = [s.stored_copies(copies, seed) if copies else s.pixels for s in self._splits]

  @property
  def num_examples(self) -> int:
    return len(self.label) * max(self.copies, 1)

  @property
  def num_batches(self) -> int:
    return -(-self.num_examples // self.batch_size)

  @property
  def num_versions(self) -> int:
    """Of each copy: as it is, and compressed where a coin decides which is seen."""
    return len(self._splits)

  @property
  def labels(self) -> np.ndarray:
    """The class of every copy, int32 [M], in the order of `in_order`."""
    return np.repeat(self.label, max(self.copies, 1)).astype(np.int32)

  def plan(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The order of the M copies in an epoch and their versions, int [M], and keys uint32 [M, 2].

    A pure function of the seed and the epoch's number.
    """
    order = np.random.default_rng([self.seed, 2, number]).permutation(self.num_examples)
    if len(self._splits) == 1:
      coin = np.zeros(self.num_examples, int)
    else:
      rng = np.random.default_rng([self.seed, 5, number])
      coin = (rng.random(self.num_examples) < self.probability).astype(int)
    rng = np.random.default_rng([self.seed, 6, number])
    return order, coin, rng.integers(0, 2**32, (self.num_examples, 2), np.uint32)

  def epoch(self, number: int) -> Iterator[dict]:
    """The batches of one epoch."""
    return self._batches(self.plan(number), self.batch_size)

  def crops(self) -> device_augment.Crops | None:
    """What the device needs to make the images; None: they come with the batches."""
    return None

  def in_order(self, version: int, batch_size: int) -> Iterator[dict]:
    """Every copy once, image by image, in one version."""
    every = np.arange(self.num_examples)
    keys = np.zeros((len(every), 2), np.uint32)
    return self._batches((every, np.full_like(every, version), keys), batch_size)

  def _batches(self, plan: tuple[np.ndarray, ...], size: int) -> Iterator[dict]:
    starts = range(0, self.num_examples, size)
    return prefetched(self._batch, [tuple(a[i : i + size] for a in plan) for i in starts])

  def _batch(self, chunk: tuple[np.ndarray, ...], pool: ThreadPoolExecutor) -> dict:
    order, coin, keys = chunk
    images = order // max(self.copies, 1)
    return {
      "image": np.stack(list(pool.map(self._pixels, order, coin))),
      "label": self.label[images].astype(np.int32),
      "index": images.astype(np.int32),
      "key": keys,
    }

  def _pixels(self, example: int, compressed: int) -> np.ndarray:
    """One example as uint8 [S, S, 3]: read where it is stored, else made."""
    stored, split = self._stored[compressed], self._splits[compressed]
    if stored is not None:
      return stored[example]
    return split.augmented(example // self.copies, example % self.copies, self.seed)


class DeviceEpochs(AugmentedEpochs):
  """The same epochs, their copies made on the device: see `device_augment`.

  Batches have `example`, int [N], in place of `image`; `images_of` makes those of the crops, which
  go to the device once.
  """

  def __init__(self, split: Split, *, copies: int, batch_size: int, seed: int):
    self.copies, self.batch_size, self.seed = copies, batch_size, seed
    self.label, self._splits = split.label, [split]

  def crops(self) -> device_augment.Crops:
    split = self._splits[0]
    return device_augment.Crops(split.pixels, split.box[:, 2:].astype(np.int32), self.seed)

  def _batch(self, chunk: tuple[np.ndarray, ...], pool: ThreadPoolExecutor) -> dict:
    order, _, keys = chunk
    images = order // self.copies
    return {
      "example": order.astype(np.int32),
      "label": self.label[images].astype(np.int32),
      "index": images.astype(np.int32),
      "key": keys,
    }


def images_of(crops: device_augment.Crops | None, copies: int, batch: dict) -> jax.Array:
  """On the device: a batch's images, [N, S, S, 3]; `crops` None: they are there already."""
  if crops is None:
    return batch["image"]
  return device_augment.copies_of(crops, batch["example"], copies=copies)


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
