"""The same network in PyTorch, used the reference's way, for `jprotop benchmark`.

All images are of 224 pixels. One image at a time is attacked, with two forward passes and one
backward pass a step; the push loops over prototypes in Python. No pictures are written. Nothing
else of jprotop uses this.
"""

import contextlib
import dataclasses
import multiprocessing
import time
from collections.abc import Callable, Generator
from concurrent import futures

import numpy as np
import torch
from jaxtyping import Int
from torch.nn import functional

from jprotop.benchmark.timing import timed
from jprotop.benchmark.torch_twin import PPNet

_PUSH_BATCH = 75


class Reference:
  """The twin network, and seconds of each stage of `jprotop benchmark` on it.

  Args:
    batch_size: images at 224 pixels that the forward pass and the joint step take.
    repeats: timed runs of each of the two; their median counts.
  """

  def __init__(
    self,
    backbone: str,
    num_classes: int,
    prototypes_per_class: int,
    batch_size: int,
    repeats: int,
  ):
    torch.manual_seed(0)
    self.network = PPNet(backbone, num_classes, prototypes_per_class)
    self.images, self.labels = torch.rand(batch_size, 3, 224, 224), torch.arange(batch_size)
    self.labels %= num_classes
    self.repeats = repeats

  def forward(self) -> float:
    """Seconds an image."""
    self.network.eval()
    with torch.no_grad():
      return self._median(lambda: self.network(self.images)) / len(self.images)

  def joint_step(self) -> float:
    """Seconds an image of a step of the joint phase: train-mode batch norm, Adam."""
    network = self.network.train()
    rates = {"features": 1e-4, "add_on_layers": 3e-3}
    groups = [
      {"params": getattr(network, name).parameters(), "lr": rate, "weight_decay": 1e-3}
      for name, rate in rates.items()
    ]
    optimizer = torch.optim.Adam([*groups, {"params": network.prototype_vectors, "lr": 3e-3}])
    own = network.prototype_class_identity[:, self.labels].T > 0
    wrong = 1 - network.prototype_class_identity.T

    def step():
      logits, least = network(self.images)
      cluster = least.masked_fill(~own, torch.inf).amin(dim=1).mean()
      separation = least.masked_fill(own, torch.inf).amin(dim=1).mean()
      penalty = (network.last_layer.weight * wrong).norm(p=1)
      loss = functional.cross_entropy(logits, self.labels)
      loss = loss + 0.8 * cluster - 0.08 * separation + 1e-4 * penalty
      optimizer.zero_grad()
      loss.backward()
      optimizer.step()

    return self._median(step) / len(self.images)

  def attack(self, num_steps: int) -> float:
    """Seconds of an attack on one image and one prototype."""
    network, clean = self.network.eval(), self.images[:1]
    target = torch.zeros(7, 7, dtype=torch.bool)
    target[:2, :2] = True
    mask = functional.interpolate(target[None, None].float(), size=clean.shape[2:])

    def run():
      x = clean.clone()
      for _ in range(num_steps):
        x.requires_grad_(True)
        maps = network.similarity(network.sq_dist(network.latent(x)))[0, 0]
        objective = maps[target].mean() - maps[~target].mean()
        objective.backward()  # To the weights, too: they are not told apart.
        with torch.no_grad():
          step = x + 2 / 255 * x.grad.sign() * mask
          x = (clean + (step - clean).clamp(-8 / 255, 8 / 255)).clamp(0, 1)
          network(x)  # It looks at every iterate once more.

    start = time.perf_counter()
    run()
    return time.perf_counter() - start

  def _median(self, call: Callable[[], object]) -> float:
    return timed(call, self.repeats)[0]

  def push(self, labels: Int[np.ndarray, " N"]) -> float:
    """Seconds of a push over images of these labels; there are 50 different ones."""
    images = np.random.default_rng(1).random((50, 224, 224, 3), np.float32)
    network, start = self.network.eval(), time.perf_counter()
    count, depth = network.num_prototypes, network.prototype_shape[1]
    classes = network.prototype_class_identity.argmax(dim=1).numpy()
    nearest, patches = np.full(count, np.inf), np.zeros((count, depth))
    boxes = np.zeros((count, 4), int)
    for first in range(0, len(labels), _PUSH_BATCH):
      rows = np.arange(len(labels))[first : first + _PUSH_BATCH]
      batch = torch.from_numpy(images[rows % 50].transpose(0, 3, 1, 2).copy())
      with torch.no_grad():
        latent = network.latent(batch)
        sq_dist, latent = network.sq_dist(latent).numpy(), latent.numpy()
      label = labels[rows]
      for j in range(count):
        own = np.flatnonzero(label == classes[j])
        if not own.size:
          continue
        distances = sq_dist[own, j]
        if distances.min() < nearest[j]:
          nearest[j] = distances.min()
          i, row, column = np.unravel_index(distances.argmin(), distances.shape)
          patches[j] = latent[own[i], :, row, column]
          boxes[j] = _box(torch.from_numpy(distances[i]), 224)
    return time.perf_counter() - start


@dataclasses.dataclass(frozen=True)
class Apart:
  """Times the methods of the `Reference` of a process."""

  process: futures.Executor

  def seconds(self, stage: str, *arguments) -> float:
    """What the method of that name returns."""
    return self.process.submit(_measure, stage, arguments).result()


@contextlib.contextmanager
def apart(*arguments) -> Generator[Apart]:
  """A `Reference` in a process of its own: what ours sets for its memory does not concern it."""
  spawn = multiprocessing.get_context("spawn")
  with futures.ProcessPoolExecutor(1, spawn, _begin, arguments) as process:
    yield Apart(process)


_reference: Reference | None = None  # Of that process.


def _begin(*arguments) -> None:
  global _reference
  _reference = Reference(*arguments)


def _measure(stage: str, arguments: tuple) -> float:
  return getattr(_reference, stage)(*arguments)


def _box(distances: torch.Tensor, size: int) -> tuple[int, int, int, int]:
  """The box of high activation (y0, y1, x0, x1) of a map of distances [h, w]."""
  maps = torch.log((distances + 1) / (distances + 1e-4))[None, None]
  upsampled = functional.interpolate(maps, size=(size, size), mode="bicubic")[0, 0].numpy()
  rows, columns = np.nonzero(upsampled >= np.percentile(upsampled, 95))
  return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
