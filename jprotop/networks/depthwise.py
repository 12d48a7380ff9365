"""Depthwise convolution in the form that is fast on a CPU: a sum over the kernel's taps.

XLA's CPU compiler takes ten to fifty times as long for a convolution with as many groups as
channels. Its value is the sum of shifted images, each times a row of the kernel; its gradient to
the pixels is the same over planes of pixels that see the same taps; and its gradient to the kernel
is one reduction with a result for every tap.
"""

import functools
import operator
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_conv(
  x: Float[Array, "N H W C"],
  kernel: Float[Array, "kh kw 1 C"],
  strides: tuple[int, int],
  padding: Padding,
) -> Float[Array, "N h w C"]:
  """Each channel of x convolved with a kernel of its own."""
  taps = _tap_images(x, kernel.shape[:2], strides, padding)
  return functools.reduce(
    operator.add, (image * kernel[i : i + 1, j : j + 1] for (i, j), image in taps)
  )


def _tap_images(
  x: Float[Array, "N H W C"], taps: tuple[int, ...], strides: tuple[int, int], padding: Padding
) -> Iterator[tuple[tuple[int, ...], Float[Array, "N h w C"]]]:
  """((row, column), what the outputs see of x there) for each of a kernel's taps."""
  rows, columns = (
    (size + sum(pads) - length) // stride + 1
    for size, length, stride, pads in zip(x.shape[1:3], taps, strides, padding)
  )
  # Apart, or what computes x would be done once a tap.
  x = lax.optimization_barrier(jnp.pad(x, ((0, 0), *padding, (0, 0))))
  down, right = strides
  for i, j in np.ndindex(*taps):
    yield (i, j), x[:, i : i + rows * down : down, j : j + columns * right : right]


def _forward(x, kernel, strides, padding):
  return depthwise_conv(x, kernel, strides, padding), (x, kernel)


def _backward(strides, padding, residuals, cotangent):
  x, kernel = residuals
  return (
    _image_gradient(x.shape[1:3], kernel, strides, padding, cotangent),
    _kernel_gradient(x, kernel, strides, padding, cotangent),
  )


depthwise_conv.defvjp(_forward, _backward)


def _kernel_gradient(x, kernel, strides, padding, cotangent):
  """Image by image, in one reduction: its sums of all taps stay in registers."""
  taps = _tap_images(x, kernel.shape[:2], strides, padding)
  cotangent = cotangent.astype(jnp.float32)
  products = tuple(image.astype(jnp.float32) * cotangent for _, image in taps)
  add = lambda a, b: tuple(map(operator.add, a, b))  # noqa: E731
  sums = lax.reduce(products, (np.float32(0),) * len(products), add, (1, 2))
  gradient = jnp.stack([image_sums.sum(axis=0) for image_sums in sums])
  return gradient.reshape(kernel.shape).astype(kernel.dtype)


def _image_gradient(size, kernel, strides, padding, cotangent):
  """Pixels with the same place within a stride are seen by the same taps: a plane of each."""
  n, *outputs, channels = cotangent.shape
  # Outputs before its own that see a pixel; and planes' sizes, which reach the last pixel.
  reach = [(length - 1) // stride for length, stride in zip(kernel.shape[:2], strides)]
  rows, columns = (
    -(-(extent + low) // stride) for extent, stride, (low, _) in zip(size, strides, padding)
  )
  grow = [(r, max(m - o, 0)) for r, m, o in zip(reach, (rows, columns), outputs)]
  cotangent = jnp.pad(cotangent, ((0, 0), *grow, (0, 0)))
  down, right = strides

  def plane(row, column):
    total = jnp.zeros((n, rows, columns, channels), cotangent.dtype)
    for i in range(row, kernel.shape[0], down):
      for j in range(column, kernel.shape[1], right):
        top, left = reach[0] - i // down, reach[1] - j // right
        seen_by = cotangent[:, top : top + rows, left : left + columns]
        total += seen_by * kernel[i : i + 1, j : j + 1]
    return total

  planes = [jnp.stack([plane(i, j) for j in range(right)], axis=3) for i in range(down)]
  whole = jnp.stack(planes, axis=2).reshape(n, rows * down, columns * right, channels)
  (top, _), (left, _) = padding
  return whole[:, top : top + size[0], left : left + size[1]]
