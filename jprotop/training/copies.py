"""A config's augmented copies, and what a network, or its first layers, make of each, stored."""

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Shaped
from tqdm import tqdm

from jprotop import parallel
from jprotop.data.alterations import Scheme
from jprotop.data.batches import EpochPlan, Epochs, device_epochs, host_epochs
from jprotop.data.dataset import Split
from jprotop.prototypes.see import Scene

# Beyond it an array lies in a memory-mapped file that goes away with the program.
MAX_MEMORY_BYTES = 4e9


def augmented(config: dict, split: Split, *, pretraining: bool = False) -> Epochs:
  """What a config's phases see of a split. The coin of App. F.2 is tossed in the phases of the
  paper, not in the pretraining that comes before them."""
  train = config["train"]
  settings, copies = train["alteration"], _count(config, pretraining)
  common = dict(copies=copies, batch_size=train["batch_size"], seed=train["seed"])
  if train["data"]["augment"] == "device" and copies:
    return device_epochs(split, **common)
  altering = train["network"] == "remedied" and not pretraining
  return host_epochs(
    split,
    **common,
    alteration=Scheme(settings["name"], settings["parameter"]) if altering else None,
    probability=train["remedy"]["probability"],
  )


def plan_of(config: dict, split: Split) -> EpochPlan:
  """The plan of the same epochs, of which nothing is rendered."""
  train = config["train"]
  versions = 2 if train["network"] == "remedied" else 1
  copies = _count(config, pretraining=False)
  return EpochPlan(split.label, copies, train["batch_size"], train["seed"], versions)


def _count(config: dict, pretraining: bool) -> int:
  """How many copies of each image a config's network sees."""
  train = config["train"]
  adversarial = train["network"] == "adversarial" and not pretraining
  return (train["adversarial"] if adversarial else train["data"])["copies"]


def array(shape: tuple[int, ...], dtype: Any = np.float32) -> Shaped[np.ndarray, "..."]:
  """Room for values, in memory or, where they are many, in a file."""
  if np.prod(shape, dtype=np.int64) * np.dtype(dtype).itemsize <= MAX_MEMORY_BYTES:
    return np.empty(shape, dtype)
  with tempfile.TemporaryFile() as file:
    return np.memmap(file, dtype, "w+", shape=shape)


def every(
  function: Callable, scene: Scene, epochs: Epochs, bar: tqdm, cost: float
) -> Iterator[tuple[tuple[int, slice], Any]]:
  """((version, copies), what `function` returns of them), until all were seen.

  Args:
    function: one of `parallel.per_example`, of the scene and a batch.
    bar: moves on by the cost of each image.
  """
  plan = epochs.plan
  size = parallel.round_up(plan.batch_size)
  for version in range(plan.num_versions):
    batches, start = epochs.in_order(version, size), 0
    for part in parallel.map_examples(function, scene, batches, size):
      stop = min(start + size, plan.num_examples)
      yield (version, slice(start, stop)), part
      bar.update((stop - start) * cost)
      start = stop
