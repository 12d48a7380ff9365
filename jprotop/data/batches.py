"""Batches {image, label, index} of host arrays, as `parallel.place` takes them to the devices.

Images are uint8 [N, S, S, 3]; they become float32 in [0, 1] there.

Training batches also have `key`, uint32 [N, 2]: a raw random key for each image of each epoch.
"""

import abc
import collections
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32, UInt8, UInt32

from jprotop.data import device_augment
from jprotop.data.alterations import Scheme
from jprotop.data.dataset import Split


def to_float(pixels: UInt8[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n"]:
  """Pixels in [0, 1]; the device's way to the same numbers is `parallel.place`."""
  return pixels.astype(np.float32) / np.float32(255)


def in_order(
  split: Split, batch_size: int, indices: Sequence[int] | Int[np.ndarray, " n"] | None = None
) -> Iterator[dict]:
  """Un-augmented crops in the order of the data set, or of `indices`."""
  indices = np.arange(len(split)) if indices is None else np.asarray(indices)
  for start in range(0, len(indices), batch_size):
    chunk = indices[start : start + batch_size]
    yield {
      "image": split.pixels[chunk],
      "label": split.label[chunk].astype(np.int32),
      "index": chunk.astype(np.int32),
    }


class Examples(NamedTuple):
  """M augmented copies in an order.

  Attributes:
    number: which they are; an image's copies follow each other, image by image.
    version: in which version each is seen.
    key: a raw random key for each.
  """

  number: Int[np.ndarray, " M"]
  version: Int[np.ndarray, " M"]
  key: UInt32[np.ndarray, "M 2"]

  def in_batches(self, size: int) -> list["Examples"]:
    starts = range(0, len(self.number), size)
    return [Examples(*(array[i : i + size] for array in self)) for i in starts]


@dataclasses.dataclass(frozen=True)
class EpochPlan:
  """Every image's augmented copies, shuffled anew in each epoch; nothing of how they look.

  The copies of an image are the same in every epoch, as in the reference, which writes them to
  disk. With two versions of each, a coin that is tossed anew each time says which is seen.

  Attributes:
    label: the class of each image.
    copies: of each image; 0: no augmentation, each image once as it is.
    batch_size, seed: of the training.
    num_versions: 1 or 2.
    probability: of the second version.
  """

  label: Int[np.ndarray, " N"]
  copies: int
  batch_size: int
  seed: int
  num_versions: int = 1
  probability: float = 0.0

  @property
  def num_examples(self) -> int:
    return len(self.label) * max(self.copies, 1)

  @property
  def num_batches(self) -> int:
    return -(-self.num_examples // self.batch_size)

  @property
  def labels(self) -> Int32[np.ndarray, " M"]:
    """The class of every copy, image by image."""
    return np.repeat(self.label, max(self.copies, 1)).astype(np.int32)

  def drawn(self, number: int) -> Examples:
    """The copies of the epoch of that number: a pure function of it and the seed."""
    order = np.random.default_rng([self.seed, 2, number]).permutation(self.num_examples)
    if self.num_versions == 1:
      coin = np.zeros(self.num_examples, int)
    else:
      rng = np.random.default_rng([self.seed, 5, number])
      coin = (rng.random(self.num_examples) < self.probability).astype(int)
    rng = np.random.default_rng([self.seed, 6, number])
    return Examples(order, coin, rng.integers(0, 2**32, (self.num_examples, 2), np.uint32))

  def every(self, version: int) -> Examples:
    """Every copy once, image by image, in one version."""
    every = np.arange(self.num_examples)
    return Examples(every, np.full_like(every, version), np.zeros((len(every), 2), np.uint32))


def images_that_came(_: dict, batch: dict) -> Float[Array, "N h w F"]:
  """On the device: the images of a batch that brings them, or what stands for them."""
  return batch["image"]


@dataclasses.dataclass(frozen=True)
class CopiesOnDevice:
  """On the device: images of a batch's `example`, of `copies` of each crop."""

  copies: int

  def __call__(self, shared: dict, batch: dict) -> Float32[Array, "N S S 3"]:
    return device_augment.copies_of(shared["crops"], batch["example"], copies=self.copies)


class Renderer(abc.ABC):
  """Who makes what the network is shown.

  Attributes:
    shared: by name, what the devices need once to make images of batches.
    on_device: (shared, placed batch) to the images there, [N, S, S, 3]; hashable.
  """

  shared: dict[str, Any]
  on_device: Callable

  @abc.abstractmethod
  def batch(self, examples: Examples, pool: ThreadPoolExecutor) -> dict:
    """What the images of a batch are made of, by name."""


class HostRenderer(Renderer):
  """Copies made with Pillow, each of its crop at that one's resolution; the devices get images.

  A set that is small enough is kept as a pixel file.
  """

  def __init__(self, plan: EpochPlan, versions: Sequence[Split]):
    """`versions`: the split as it is seen in each."""
    self.shared, self.on_device = {}, images_that_came
    self._copies, self._seed, self._versions = plan.copies, plan.seed, versions
    self._stored = [
      s.stored_copies(plan.copies, plan.seed) if plan.copies else s.pixels for s in versions
    ]

  def batch(self, examples: Examples, pool: ThreadPoolExecutor) -> dict:
    """What the images are made of: themselves."""
    number, version = examples.number.tolist(), examples.version.tolist()
    return {"image": np.stack(list(pool.map(self._pixels, number, version)))}

  def _pixels(self, number: int, version: int) -> UInt8[np.ndarray, "S S 3"]:
    """One example: read where it is stored, else made."""
    stored, split = self._stored[version], self._versions[version]
    if stored is not None:
      return stored[number]
    return split.augmented(number // self._copies, number % self._copies, self._seed)


class DeviceRenderer(Renderer):
  """Copies made on the device, of crops that go there once: see `device_augment`."""

  def __init__(self, plan: EpochPlan, split: Split):
    sizes = split.box[:, 2:].astype(np.int32)
    self.shared = {"crops": device_augment.Crops(split.pixels, sizes, plan.seed)}
    self.on_device = CopiesOnDevice(plan.copies)

  def batch(self, examples: Examples, pool: ThreadPoolExecutor) -> dict:
    """What the images are made of: their numbers."""
    return {"example": examples.number.astype(np.int32)}


@dataclasses.dataclass(frozen=True)
class Epochs:
  """The batches of a training: a plan, and who renders it."""

  plan: EpochPlan
  renderer: Renderer

  def epoch(self, number: int) -> Iterator[dict]:
    """The batches of one epoch."""
    return self._batches(self.plan.drawn(number), self.plan.batch_size)

  def in_order(self, version: int, batch_size: int) -> Iterator[dict]:
    """Every copy once, image by image, in one version."""
    return self._batches(self.plan.every(version), batch_size)

  def _batches(self, examples: Examples, size: int) -> Iterator[dict]:
    return prefetched(self._batch, examples.in_batches(size))

  def _batch(self, examples: Examples, pool: ThreadPoolExecutor) -> dict:
    images = examples.number // max(self.plan.copies, 1)
    return {
      **self.renderer.batch(examples, pool),
      "label": self.plan.label[images].astype(np.int32),
      "index": images.astype(np.int32),
      "key": examples.key,
    }


def host_epochs(
  split: Split,
  *,
  copies: int,
  batch_size: int,
  seed: int,
  alteration: Scheme | None = None,
  probability: float = 0.0,
) -> Epochs:
  """Epochs of a split, rendered on the host.

  Args:
    alteration, probability: with which each copy is altered, drawn anew each time it is seen (App.
      F.2); None: never.
  """
  versions = [split] + ([split.altered(alteration)] if alteration else [])
  plan = EpochPlan(split.label, copies, batch_size, seed, len(versions), probability)
  return Epochs(plan, HostRenderer(plan, versions))


def device_epochs(split: Split, *, copies: int, batch_size: int, seed: int) -> Epochs:
  """The same epochs, rendered on the device."""
  plan = EpochPlan(split.label, copies, batch_size, seed)
  return Epochs(plan, DeviceRenderer(plan, split))


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
