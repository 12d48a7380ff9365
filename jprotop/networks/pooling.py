"""Max-pooling in a form whose gradient is fast on a CPU, and the plain one; see `layers`."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jprotop.networks.layers import LayerOptions


def max_pool(
  x: Float[Array, "N H W C"], size: int, stride: int, padding: int, options: LayerOptions
) -> Float[Array, "N h w C"]:
  """Max-pooling; where values are equal the gradient goes to the first."""
  if not options.fast:
    pads = ((padding, padding), (padding, padding))
    return nn.max_pool(x, (size, size), strides=(stride, stride), padding=pads)
  pads = [(0, 0, 0)] * 4
  for axis in (1, 2):
    windows = (x.shape[axis] + 2 * padding - size) // stride + 1
    whole = (windows + (size - 1) // stride) * stride
    pads[axis] = (padding, whole - x.shape[axis] - padding, 0)
  return fast_max_pool(lax.pad(x, jnp.array(-jnp.inf, x.dtype), pads), size, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def fast_max_pool(x: Float[Array, "N H W C"], size: int, stride: int) -> Float[Array, "N h w C"]:
  """Max-pooling as the maximum of size x size strided slices; NaN stays NaN.

  H and W are h and w, and (size - 1) // stride more, times the stride.
  """
  return _maximum_and_tap(x, size, stride)[0]


def _maximum_and_tap(x, size, stride):
  """The maximum of each window, and which of its pixels it is, row by row."""
  rows, columns = (n - (size - 1) // stride * stride for n in x.shape[1:3])
  best = x[:, :rows:stride, :columns:stride]
  tap = jnp.zeros(best.shape, jnp.uint8)
  for number in range(1, size * size):
    i, j = divmod(number, size)
    value = x[:, i : i + rows : stride, j : j + columns : stride]
    keep = (best >= value) | jnp.isnan(best)
    best, tap = jnp.where(keep, best, value), jnp.where(keep, tap, jnp.uint8(number))
  return best, tap


def _fast_max_pool_backward(size, stride, tap, cotangent):
  """Pixels with the same place within a stride are seen by the same windows: a plane of each."""
  reach = (size - 1) // stride  # Windows before its own that see a pixel.
  grow = ((0, 0), (reach, reach), (reach, reach), (0, 0))
  tap, cotangent = jnp.pad(tap, grow), jnp.pad(cotangent, grow)
  n, rows, columns, features = cotangent.shape
  rows, columns = rows - reach, columns - reach

  def plane(row, column):
    total = jnp.zeros((n, rows, columns, features), cotangent.dtype)
    for i in range(row, size, stride):
      for j in range(column, size, stride):
        top, left = reach - i // stride, reach - j // stride
        window = np.s_[:, top : top + rows, left : left + columns]
        total += jnp.where(tap[window] == i * size + j, cotangent[window], 0)
    return total

  planes = [jnp.stack([plane(i, j) for j in range(stride)], axis=3) for i in range(stride)]
  return (jnp.stack(planes, axis=2).reshape(n, rows * stride, columns * stride, features),)


fast_max_pool.defvjp(_maximum_and_tap, _fast_max_pool_backward)
