"""Convolution and batch norm, in the forms that are fast on each platform.

XLA's CPU compiler only recognises a convolution inside a loop body (as in the attack) when it is
written in NHWC/HWIO order, and its gradients of strided stems and of max-pooling are slow. The
`fast` forms below, and those of `pooling`, compute the same values and gradients in a shape that it
likes. Every other platform, and forward-mode derivatives (which `jax.custom_vjp` rules out), take
the `plain` ones.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jprotop.networks.depthwise import Padding, depthwise_conv

_NHWC = ("NHWC", "HWIO", "NHWC")

kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


@dataclasses.dataclass(frozen=True)
class LayerOptions:
  """What every layer of a network shares.

  Attributes:
    dtype: compute dtype of the backbone and the add-on layers; parameters stay float32.
    axis_name: mapped axis over which train-mode batch norm averages its statistics; None: each
      device its own.
    forms: "auto" chooses by platform; "plain" and "fast" force one (forward-mode: "plain").
  """

  dtype: Any = jnp.float32
  axis_name: str | None = None
  forms: str = "auto"

  @property
  def fast(self) -> bool:
    """The one place that chooses a form by platform."""
    if self.forms == "auto":
      return jax.default_backend() == "cpu"
    return self.forms == "fast"


def _convolution(x, kernel, strides: tuple[int, int], padding: Padding):
  return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_NHWC)


def _kernel_gradient(x, kernel, strides, padding, cotangent):
  """By planes on large grids, where XLA's own takes two to six times as long; else XLA's own."""
  if strides == (1, 1) and cotangent.shape[1] * cotangent.shape[2] >= _LARGE_GRID:
    return kernel_gradient_of_planes(x, kernel.shape[:2], padding, cotangent)
  _, vjp = jax.vjp(lambda k: _convolution(x, k, strides, padding), kernel)
  return vjp(cotangent)[0]


# Cells: at 28 x 28 planes take 0.4 of the time of XLA's own form, at 14 x 14 they are no faster.
_LARGE_GRID = 20 * 20


def kernel_gradient_of_planes(
  x: Float[Array, "N H W I"],
  taps: tuple[int, int],
  padding: Padding,
  cotangent: Float[Array, "N h w O"],
) -> Float[Array, "kh kw I O"]:
  """The kernel's gradient of a convolution of stride 1: a matrix product for each of its taps.

  Images stand one after another in one long row of cells, with as many zeros after each line and
  each image as the padding needs. Whatever a tap sees of a cell's surroundings then lies at one
  fixed distance in that row, so that all that a tap sees is one slice without gaps.
  """
  (top, bottom), (left, right) = padding
  count, *extents = x.shape[:3]
  height = max(extents[0] + max(top, bottom), cotangent.shape[1])
  width = max(extents[1] + max(left, right), cotangent.shape[2])
  starts = [row * width + column for row in range(taps[0]) for column in range(taps[1])]
  before = top * width + left

  def in_a_row(cells):
    pads = (height - cells.shape[1], width - cells.shape[2])
    cells = jnp.pad(cells, ((0, 0), (0, pads[0]), (0, pads[1]), (0, 0)))
    return cells.reshape(count * height * width, cells.shape[3])

  seen = jnp.pad(in_a_row(x), ((before, max(starts[-1] - before, 0)), (0, 0)))
  cotangent = in_a_row(cotangent)
  products = [seen[start : start + len(cotangent)].T @ cotangent for start in starts]
  return jnp.stack(products).reshape(*taps, x.shape[3], cotangent.shape[1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def fast_conv(
  x: Float[Array, "N H W I"],
  kernel: Float[Array, "kh kw I O"],
  strides: tuple[int, int],
  padding: Padding,
) -> Float[Array, "N h w O"]:
  """A convolution whose input gradient is an ordinary one, too."""
  return _convolution(x, kernel, strides, padding)


def _fast_conv_forward(x, kernel, strides, padding):
  return fast_conv(x, kernel, strides, padding), (x, kernel)


def _fast_conv_backward(strides, padding, residuals, cotangent):
  x, kernel = residuals
  gradient_padding = []
  for axis in (0, 1):
    size, taps, stride = x.shape[axis + 1], kernel.shape[axis], strides[axis]
    low = taps - 1 - padding[axis][0]
    dilated = (cotangent.shape[axis + 1] - 1) * stride + 1
    gradient_padding.append((low, size - dilated - low + taps - 1))
  x_gradient = lax.conv_general_dilated(
    cotangent,
    kernel[::-1, ::-1].swapaxes(2, 3),
    (1, 1),
    gradient_padding,
    lhs_dilation=strides,
    dimension_numbers=_NHWC,
  )
  return x_gradient, _kernel_gradient(x, kernel, strides, padding, cotangent)


fast_conv.defvjp(_fast_conv_forward, _fast_conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def stem_conv(
  x: Float[Array, "N H W I"], kernel: Float[Array, "k k I O"], padding: Padding
) -> Float[Array, "N h w O"]:
  """The 7x7 stride-2 convolution of images.

  Its input gradient is found over blocks of pixels, where it is an ordinary convolution. The value
  and the kernel's gradient are not: there XLA takes four and two times as long over blocks.
  """
  return _convolution(x, kernel, (2, 2), padding)


def _stem_conv_forward(x, kernel, padding):
  return stem_conv(x, kernel, padding), (x, kernel)


def _stem_conv_backward(padding, residuals, cotangent):
  x, kernel = residuals
  _, x_vjp = jax.vjp(lambda x: space_to_depth_conv(x, kernel, padding), x)
  return *x_vjp(cotangent), _kernel_gradient(x, kernel, (2, 2), padding, cotangent)


stem_conv.defvjp(_stem_conv_forward, _stem_conv_backward)


def space_to_depth_conv(
  x: Float[Array, "N H W I"], kernel: Float[Array, "k k I O"], padding: Padding
) -> Float[Array, "N h w O"]:
  """A stride-2 convolution with an odd, square kernel as a stride-1 one over 2x2 blocks."""
  size, channels, features = kernel.shape[0], *kernel.shape[2:]
  taps = size + 1
  kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
  kernel = kernel.reshape(taps // 2, 2, taps // 2, 2, channels, features)
  kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(taps // 2, taps // 2, -1, features)
  pads = []
  for extent, (low, high) in zip(x.shape[1:3], padding):
    outputs = (extent + low + high - size) // 2 + 1
    pads.append((low, (outputs - 1) * 2 + taps - extent - low))
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  n, height, width, _ = x.shape
  x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5).reshape(n, height // 2, width // 2, 4 * channels)
  return fast_conv(x, kernel, (1, 1), ((0, 0), (0, 0)))


# What `lax.conv_general_dilated` may be given besides, and the fast forms still compute the same.
_FAST_ARGUMENTS = {
  "lhs_dilation": (None, (1, 1)),
  "rhs_dilation": (None, (1, 1)),
  "dimension_numbers": (_NHWC, lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))),
  "batch_group_count": (1,),
  "precision": (None,),
  "preferred_element_type": (None,),
}


def conv_form(x, kernel, strides, padding, *, feature_group_count=1, **others):
  """What flax.linen.Conv calls in place of `lax.conv_general_dilated` where fast forms are on.

  A convolution that they do not know, such as a dilated one, is the plain one.
  """
  groups = feature_group_count
  depthwise = groups > 1 and kernel.shape[2:] == (1, groups)
  known = all(value in _FAST_ARGUMENTS.get(name, ()) for name, value in others.items())
  if not known or (groups > 1 and not depthwise):
    return lax.conv_general_dilated(
      x, kernel, strides, padding, feature_group_count=groups, **others
    )
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
  padding = tuple((int(low), int(high)) for low, high in padding)
  if depthwise:
    return depthwise_conv(x, kernel, tuple(strides), padding)
  if tuple(strides) == (2, 2) and kernel.shape[0] == kernel.shape[1] == 7:
    return stem_conv(x, kernel, padding)
  if kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0)):
    # As a convolution, its kernel's gradient takes two to nine times as long.
    return x[:, :: strides[0], :: strides[1]] @ kernel[0, 0]
  return fast_conv(x, kernel, tuple(strides), padding)


def conv(
  features: int,
  size: int,
  stride: int = 1,
  *,
  options: LayerOptions,
  name: str | None,
  use_bias: bool = False,
) -> nn.Conv:
  """A square convolution with explicit, symmetric padding, as PyTorch pads (not `SAME`)."""
  return nn.Conv(
    features,
    (size, size),
    strides=(stride, stride),
    padding=[(size // 2, size // 2)] * 2,
    use_bias=use_bias,
    dtype=options.dtype,
    kernel_init=kaiming_fan_out,
    conv_general_dilated=conv_form if options.fast else None,
    name=name,
  )


class BatchNorm(nn.Module):
  """Batch norm with PyTorch's bookkeeping: momentum 0.1, the *unbiased* running variance.

  (flax.linen's keeps the biased one.) Images that only pad a batch, mask 0, do not count.
  """

  options: LayerOptions = LayerOptions()
  epsilon: float = 1e-5
  momentum: float = 0.1

  @nn.compact
  def __call__(
    self, x: Float[Array, "N h w C"], train: bool, mask: Float[Array, " N"] | None = None
  ) -> Float[Array, "N h w C"]:
    features = x.shape[-1]
    scale = self.param("scale", nn.initializers.ones, (features,))
    bias = self.param("bias", nn.initializers.zeros, (features,))
    running_mean = self.variable("batch_stats", "mean", jnp.zeros, (features,))
    running_var = self.variable("batch_stats", "var", jnp.ones, (features,))
    if not train:
      mean, var = running_mean.value, running_var.value
    else:
      mean, var, count = self._statistics(x.astype(jnp.float32), mask)
      if not self.is_initializing():
        unbiased = var * count / jnp.maximum(count - 1, 1)
        keep = 1 - self.momentum
        running_mean.value = keep * running_mean.value + self.momentum * mean
        running_var.value = keep * running_var.value + self.momentum * unbiased
    factor = scale * lax.rsqrt(var + self.epsilon)
    shift = bias - mean * factor
    factor, shift = factor.astype(x.dtype), shift.astype(x.dtype)
    return x * factor[None, None, None] + shift[None, None, None]

  def _statistics(self, x, mask):
    """Mean and biased variance [C] over the real images, and how many values each is of."""
    weight = jnp.ones(x.shape[:1]) if mask is None else mask.astype(jnp.float32)

    def over_images(values):
      # Image by image first: XLA then reads the values without writing a weighted copy of them.
      return (values.sum(axis=(1, 2)) * weight[:, None]).sum(axis=0)

    count, total = self._over_devices((weight.sum() * x.shape[1] * x.shape[2], over_images(x)))
    mean = total / jnp.maximum(count, 1)
    squares = self._over_devices(over_images((x - mean[None, None, None]) ** 2))
    # A device that only got padding must not divide it by a standard deviation of 0.
    return mean, jnp.where(count > 0, squares / jnp.maximum(count, 1), 1.0), count

  def _over_devices(self, sums):
    axis = self.options.axis_name
    return sums if axis is None else lax.psum(sums, axis)
