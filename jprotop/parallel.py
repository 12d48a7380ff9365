"""Devices and processes: the only file that names pmap.

A mapped function sees its share of the batch; what all devices share (variables, state) goes in
and comes out unsplit. Batches are padded to a multiple of the devices, with a mask, never cut.

Several processes that joined with `jax.distributed.initialize` run the same program and see the
same batches: each computes its own rows of them on its own devices, and every result comes out
whole in all of them.
"""

import contextlib
import ctypes
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Integer, Shaped, UInt32
from tqdm import tqdm

from jprotop.errors import InputError

AXIS = "devices"
_DEVICES_FLAG = "xla_force_host_platform_device_count"
_STEPS_OF_CPU = 4  # Of a loop, in one program; 25 are too many for ResNet-18.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def num_devices() -> int:
  """Devices of all processes, of which each has as many."""
  return jax.local_device_count() * jax.process_count()


def _cores() -> int:
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_cpu_cores(batch_size: int) -> None:
  """Makes devices of the CPU's cores, as a program's first act; accelerators are not affected.

  XLA runs small networks on little more than one core, so each device gets a share of the batch:
  as many devices as there are cores, of those that divide the batch and leave each eight images.
  Freed memory is kept: giving a step's buffers back to the system and asking for them again costs
  a third of its time. Whoever sets XLA_FLAGS or JAX_NUM_CPU_DEVICES chooses the devices.
  """
  if "JAX_NUM_CPU_DEVICES" not in os.environ and _DEVICES_FLAG not in os.environ.get(
    "XLA_FLAGS", ""
  ):
    possible = (n for n in range(1, _cores() + 1) if batch_size % n == 0 and batch_size // n >= 8)
    jax.config.update("jax_num_cpu_devices", max(possible, default=1))
  with contextlib.suppress(OSError, AttributeError):  # Only glibc has it.
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_MMAP_MAX, 0)


def loop_slices(num_steps: int) -> list[int]:
  """How many steps of a loop each program takes, one after another; together `num_steps`.

  On a CPU they are few. Where each of XLA's threads runs a program, tasks that nobody takes seem to
  pile up until it ends, and after some dozens of steps a device's first image comes out wrong (seen
  in jax 0.10.2). Elsewhere one program takes them all.
  """
  most = _STEPS_OF_CPU if jax.default_backend() == "cpu" else max(num_steps, 1)
  return [min(most, num_steps - done) for done in range(0, num_steps, most)]


def device_bytes() -> int:
  """Memory of one device, of the process that has least; those of a CPU share the machine's."""
  stats = jax.local_devices()[0].memory_stats() or {}
  machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  found = np.float64(stats.get("bytes_limit", machine // jax.local_device_count()))
  return int(multihost_utils.process_allgather(found).min())


def check_batch_size(batch_size: int, flag: str) -> None:
  """Raises InputError, which names the flag, unless the devices divide the batch."""
  if batch_size < 1 or batch_size % num_devices():
    raise InputError(
      f"{flag}={batch_size} must be a positive multiple of the {num_devices()} devices"
    )


def map_devices(
  function: Callable,
  *,
  split: Sequence[bool],
  split_outputs: Any,
  donate: tuple[int, ...] = (),
) -> Callable:
  """`function` run on all devices of all processes at once, compiled once per shape.

  Args:
    function: sees its device's share of split arguments, and the whole of the others; it may use
      collectives over AXIS.
    split: for each argument, whether its leading axis is [devices, share, ...] (see `place`).
    split_outputs: the same for the outputs: a bool, or a tuple of them. Outputs that are not
      split must be equal on all devices.
    donate: arguments whose memory the outputs may take over.
  """
  return jax.pmap(
    function,
    axis_name=AXIS,
    in_axes=tuple(_axis_of(s) for s in split),
    out_axes=jax.tree.map(_axis_of, split_outputs),
    donate_argnums=donate,
  )


def _axis_of(is_split: bool) -> int | None:
  return 0 if is_split else None


def replicate(tree: Any) -> Any:
  """Arrays as mapped functions return what is not split; spares the second call a compilation."""
  return _put(tree, jax.sharding.PartitionSpec())


def _put(tree: Any, spec: jax.sharding.PartitionSpec) -> Any:
  mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (AXIS,))
  return jax.device_put(tree, jax.sharding.NamedSharding(mesh, spec))


def pad(
  batch: dict[str, Shaped[np.ndarray, "n ..."]], size: int
) -> dict[str, Shaped[np.ndarray, "{size} ..."]]:
  """A batch filled up with zeros to `size` rows, its `mask` 0 there; `mask` is added if absent."""
  count = len(next(iter(batch.values())))
  batch = {"mask": np.ones(count, np.float32), **batch}
  missing = size - count
  if not missing:
    return batch
  return {
    key: np.concatenate([value, np.zeros((missing, *value.shape[1:]), value.dtype)])
    for key, value in batch.items()
  }


def shard(batch: Any) -> Any:
  """This process's rows of arrays [N, ...], in order, as [its devices, share, ...]."""
  shape = (jax.process_count(), jax.local_device_count(), -1)
  return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:])[jax.process_index()], batch)


def place(
  batch: dict[str, Shaped[np.ndarray, "n ..."]], size: int
) -> dict[str, Shaped[Array, "devices share ..."]]:
  """A batch as mapped functions take it: padded to `size` rows, and split over the devices.

  What is uint8 are pixels: they travel as such, and are float32 in [0, 1] on the device, to the
  last digit what `data.batches.to_float` gives.

  Args:
    batch: host arrays with n <= size.
    size: a multiple of the devices.

  Returns:
    Arrays, `mask` among them, placed as a mapped function's outputs are, so that both are the same
    to the next function.
  """
  placed = _put(shard(pad(batch, size)), jax.sharding.PartitionSpec(AXIS))
  floats = _pixels_to_floats()
  return {name: floats(a) if a.dtype == jnp.uint8 else a for name, a in placed.items()}


@functools.lru_cache(maxsize=1)
def _pixels_to_floats() -> Callable:
  """A program of its own, so that no compiler makes other numbers of it with what comes after.

  It looks the 256 values up: a division would become a product with 1/255, which rounds otherwise.
  """
  values = np.arange(256, dtype=np.float32) / np.float32(255)
  return map_devices(lambda pixels: jnp.asarray(values)[pixels], split=(True,), split_outputs=True)


def unshard(outputs: Any) -> Any:
  """Device arrays [devices, share, ...] of all processes as host arrays [N, ...], in each."""
  host = jax.tree.map(lambda x: np.reshape(x, (-1, *x.shape[2:])), jax.device_get(outputs))
  return multihost_utils.process_allgather(host, tiled=True)


@functools.lru_cache(maxsize=64)
def per_example(function: Callable, *static: Any) -> Callable:
  """`function(*static, shared, batch)` on all devices, each of which has its rows of the batch.

  Cached, so that a second call with the same model compiles nothing.

  Args:
    function: a module-level function from arrays with a leading axis N to a tree of such arrays.
    static: hashable arguments, such as the model.
  """
  return map_devices(
    lambda shared, batch: function(*static, shared, batch),
    split=(False, True),
    split_outputs=True,
  )


def map_examples(
  function: Callable[[Any, dict], Any],
  shared: Any,
  batches: Iterable,
  size: int,
) -> Iterator[Any]:
  """Runs a function over batches of examples, on all devices.

  Args:
    function: (shared, batch) to outputs: one of `per_example`, or one that calls several.
    shared: a tree of arrays that every example needs, such as the variables.
    batches: dictionaries of host arrays [n, ...] with n <= size.
    size: rows that every batch is padded to: a multiple of the devices.

  Yields:
    The function's outputs for each batch, a tree of host arrays [n, ...] without the padding.
  """
  shared = replicate(shared)
  for batch in batches:
    count = len(next(iter(batch.values())))
    outputs = unshard(function(shared, place(batch, size)))
    yield jax.tree.map(lambda x, n=count: x[:n], outputs)


def gather_examples(
  function: Callable[[Any, dict], Any],
  shared: Any,
  batches: Iterable,
  size: int,
  *,
  total: int = 0,
  title: str | None = None,
) -> Any:
  """The outputs of `map_examples` for all batches together: a tree of host arrays [N, ...].

  Args:
    title: of a progress bar over `total` examples; None: none is shown.
  """
  parts = []
  with tqdm(
    total=total, desc=title, unit="image", dynamic_ncols=True, disable=title is None
  ) as bar:
    for part in map_examples(function, shared, batches, size):
      parts.append(part)
      bar.update(len(jax.tree.leaves(part)[0]))
  return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def chunks(
  examples: dict[str, Shaped[np.ndarray, "N ..."]], size: int
) -> Iterator[dict[str, np.ndarray]]:
  """Arrays as batches of `size` rows, in order; the last one may be shorter."""
  for start in range(0, len(next(iter(examples.values()))), size):
    yield {key: value[start : start + size] for key, value in examples.items()}


def round_up(size: int) -> int:
  """The smallest multiple of the devices that is at least `size`."""
  return -(-size // num_devices()) * num_devices()


def all_gather(tree: Any) -> Any:
  """Inside a mapped function: every device's tree, stacked on a new leading axis."""
  return jax.lax.all_gather(tree, AXIS)


def psum(tree: Any) -> Any:
  """Inside a mapped function: the sum over all devices."""
  return jax.lax.psum(tree, AXIS)


def key_array(
  seed: int, indices: Integer[np.ndarray, " N"], way: int | Integer[np.ndarray, " N"] = 0
) -> UInt32[np.ndarray, "N 2"]:
  """One raw random key for each index: batches and devices do not matter.

  Args:
    way: other ways, such as ranks or restarts, have other keys; no split has 2**20 images.
  """
  base, indices = jax.random.key(seed), way * 2**20 + indices
  keys = jax.vmap(lambda i: jax.random.fold_in(base, i))(jnp.asarray(indices, jnp.uint32))
  return np.asarray(jax.random.key_data(keys))
