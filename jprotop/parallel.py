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
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from jprotop.errors import InputError

AXIS = "devices"
_DEVICES_FLAG = "xla_force_host_platform_device_count"
_THREADS = "PJRT_NPROC"  # XLA's threads on a CPU; default: one a core.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def num_devices() -> int:
  """Devices of all processes, of which each has as many."""
  return jax.local_device_count() * jax.process_count()


def _cores() -> int:
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


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


def loop_devices() -> tuple[jax.Device, ...] | None:
  """This process's devices that run functions that loop, as attacks do; None: all.

  On a CPU all need a spare thread. Where every thread of XLA's runs a program of its own, a loop
  goes wrong after some dozens of steps, for a device's first image (seen in jax 0.10.2; probably
  tasks that nobody takes fill a thread's queue). PJRT_NPROC gives more threads; not by default, for
  a training on two devices and three threads was once seen to wait for ever.
  """
  threads = int(os.environ.get(_THREADS) or _cores())
  safe = jax.default_backend() != "cpu" or threads > jax.local_device_count()
  return None if safe else tuple(jax.local_devices()[:1])


def device_bytes() -> int:
  """Memory of one device, of the process that has least; those of a CPU share the machine's."""
  stats = jax.local_devices()[0].memory_stats() or {}
  machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  found = np.float64(stats.get("bytes_limit", machine // jax.local_device_count()))
  return int(multihost_utils.process_allgather(found).min())


def check_batch_size(batch_size: int, name: str) -> None:
  """Raises InputError unless the devices divide the batch."""
  if batch_size < 1 or batch_size % num_devices():
    raise InputError(
      f"{name}={batch_size} must be a positive multiple of the {num_devices()} devices; "
      f"change --config.{name}"
    )


def map_devices(
  function: Callable,
  *,
  split: Sequence[bool],
  split_outputs: Any,
  donate: tuple[int, ...] = (),
  devices: Sequence[jax.Device] | None = None,
) -> Callable:
  """`function` run on all devices of all processes at once, compiled once per shape.

  Args:
    function: sees its device's share of split arguments, and the whole of the others; it may use
      collectives over AXIS.
    split: for each argument, whether its leading axis is [devices, share, ...] (see `shard`).
    split_outputs: the same for the outputs: a bool, or a tuple of them. Outputs that are not
      split must be equal on all devices.
    donate: arguments whose memory the outputs may take over.
    devices: on these alone.
  """
  axis_of = lambda is_split: 0 if is_split else None  # noqa: E731
  return jax.pmap(
    function,
    axis_name=AXIS,
    in_axes=tuple(axis_of(s) for s in split),
    out_axes=jax.tree.map(axis_of, split_outputs),
    donate_argnums=donate,
    **({"devices": devices} if devices else {}),
  )


def replicate(tree: Any, devices: Sequence[jax.Device] | None = None) -> Any:
  """Arrays as mapped functions return what is not split; spares the second call a compilation."""
  mesh = jax.sharding.Mesh(np.array(devices or jax.local_devices()), (AXIS,))
  return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def pad(batch: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
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


def shard(batch: Any, devices: Sequence[jax.Device] | None = None) -> Any:
  """This process's rows of arrays [N, ...], in order, as [its devices, share, ...]."""
  shape = (jax.process_count(), len(devices) if devices else jax.local_device_count(), -1)
  return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:])[jax.process_index()], batch)


def unshard(outputs: Any) -> Any:
  """Device arrays [devices, share, ...] of all processes as host arrays [N, ...], in each."""
  host = jax.tree.map(lambda x: np.reshape(x, (-1, *x.shape[2:])), jax.device_get(outputs))
  return multihost_utils.process_allgather(host, tiled=True)


@functools.lru_cache(maxsize=64)
def _per_example(
  function: Callable, static: tuple, devices: tuple[jax.Device, ...] | None
) -> Callable:
  """Cached, so that a second call with the same model compiles nothing."""
  return map_devices(
    lambda shared, batch: function(*static, shared, batch),
    split=(False, True),
    split_outputs=True,
    devices=devices,
  )


def map_examples(
  function: Callable,
  static: tuple,
  shared: Any,
  batches: Iterator[dict[str, np.ndarray]],
  size: int,
  *,
  iterates: bool = False,
) -> Iterator[dict[str, np.ndarray]]:
  """Runs `function(*static, shared, batch)` over batches of examples, on all devices.

  Args:
    function: a module-level function from arrays with a leading axis N to a tree of such arrays.
    static: hashable arguments, such as the model.
    shared: a tree of arrays that every example needs, such as the variables.
    batches: dictionaries of host arrays [n, ...] with n <= size.
    size: rows that every batch is padded to: a multiple of the devices.
    iterates: the function loops, as attacks do; see `loop_devices`.

  Yields:
    The function's outputs for each batch, as host arrays [n, ...] without the padding.
  """
  devices = loop_devices() if iterates else None
  mapped, shared = _per_example(function, static, devices), replicate(shared, devices)
  for batch in batches:
    count = len(next(iter(batch.values())))
    outputs = unshard(mapped(shared, shard(pad(batch, size), devices)))
    yield jax.tree.map(lambda x, n=count: x[:n], outputs)


def gather_examples(
  function: Callable,
  static: tuple,
  shared: Any,
  batches: Iterator[dict[str, np.ndarray]],
  size: int,
  *,
  total: int = 0,
  title: str | None = None,
  iterates: bool = False,
) -> Any:
  """The outputs of `map_examples` for all batches together: a tree of host arrays [N, ...].

  Args:
    title: of a progress bar over `total` examples; None: none is shown.
  """
  parts = []
  with tqdm(
    total=total, desc=title, unit="image", dynamic_ncols=True, disable=title is None
  ) as bar:
    for part in map_examples(function, static, shared, batches, size, iterates=iterates):
      parts.append(part)
      bar.update(len(jax.tree.leaves(part)[0]))
  return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def chunks(examples: dict[str, np.ndarray], size: int) -> Iterator[dict[str, np.ndarray]]:
  """Arrays [N, ...] as batches of `size` rows, in order; the last one may be shorter."""
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


def key_array(seed: int, indices: np.ndarray) -> np.ndarray:
  """One raw random key [2] for each index, uint32 [N, 2]: batches and devices do not matter."""
  base = jax.random.key(seed)
  keys = jax.vmap(lambda i: jax.random.fold_in(base, i))(jnp.asarray(indices, jnp.uint32))
  return np.asarray(jax.random.key_data(keys))
