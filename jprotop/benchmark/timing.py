"""How long calls take, and what the machine itself can do."""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jprotop import parallel


def timed(function: Callable[[], object], repeats: int) -> tuple[float, float]:
  """Median wall time of a call in seconds, and how much longer the first one took."""
  times = []
  for _ in range(repeats + 1):
    start = time.perf_counter()
    jax.block_until_ready(function())
    times.append(time.perf_counter() - start)
  median = statistics.median(times[1:])
  return median, max(times[0] - median, 0.0)


def matrix_product_ceiling(dtype: str, repeats: int) -> float:
  """FLOP a second of a plain matrix product on all local devices, of the size that is fastest."""
  product = parallel.map_devices(lambda x: x @ x, split=(True,), split_outputs=True)

  def speed(size: int) -> float:
    a = jnp.ones((parallel.num_devices(), size, size), dtype)
    return parallel.num_devices() * 2 * size**3 / timed(lambda: product(a), repeats)[0]

  return max(speed(size) for size in (1024, 2048, 4096))


def bandwidth_ceiling(repeats: int, size: int = 2**25) -> float:
  """Bytes a second that adding one to a long row in place moves, on all local devices."""
  row = jnp.ones((parallel.num_devices(), size), jnp.float32)
  add = parallel.map_devices(lambda x: x + 1, split=(True,), split_outputs=True, donate=(0,))

  def run():
    nonlocal row
    row = add(row)
    return row

  return parallel.num_devices() * 2 * 4 * size / timed(run, repeats)[0]
