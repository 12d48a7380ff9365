"""DenseNet backbones (Huang et al. 2017) in torchvision's layout, through the last ReLU."""

import functools
import re

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jprotop.networks.families import Family, Names, torchvision_file, without_classifier
from jprotop.networks.layers import BatchNorm, LayerOptions, conv
from jprotop.networks.pooling import max_pool

_BOTTLENECK = 4  # channels of a layer's 1x1 convolution, in multiples of the growth


class DenseLayer(nn.Module):
  """1x1 and 3x3 convolutions, norm and ReLU before each.

  What comes in is passed on in front of the new channels.
  """

  growth: int
  options: LayerOptions

  @nn.compact
  def __call__(
    self, x: Float[Array, "N h w C"], train: bool, mask: Float[Array, " N"] | None
  ) -> Float[Array, "N h w C+{self.growth}"]:
    y = nn.relu(BatchNorm(self.options, name="norm1")(x, train, mask))
    y = conv(_BOTTLENECK * self.growth, 1, options=self.options, name="conv1")(y)
    y = nn.relu(BatchNorm(self.options, name="norm2")(y, train, mask))
    y = conv(self.growth, 3, options=self.options, name="conv2")(y)
    return jnp.concatenate([x, y], axis=-1)


def average_pool(x: Float[Array, "N H W C"]) -> Float[Array, "N H//2 W//2 C"]:
  """Means of 2x2 cells; an odd last one is left out.

  Written with a reshape because the gradient of that is a mere broadcast on every platform.
  """
  n, height, width, channels = x.shape
  rows, columns = height // 2, width // 2
  x = x[:, : 2 * rows, : 2 * columns].reshape(n, rows, 2, columns, 2, channels)
  return x.mean(axis=(2, 4))


class DenseNet(nn.Module):
  """Stem, dense blocks, and transitions that halve channels and grid between them.

  Attributes:
    block_sizes: layers in each dense block.
    growth: channels that each layer adds.
    stem_features: channels of the stem, which reduces the grid by 4.
  """

  block_sizes: tuple[int, ...]
  growth: int = 32
  stem_features: int = 64
  options: LayerOptions = LayerOptions()

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "N H W 3"],
    train: bool = False,
    mask: Float[Array, " N"] | None = None,
  ) -> Float[Array, "N h w F"]:

    def norm(name, y):
      return BatchNorm(self.options, name=name)(y, train, mask)

    x = conv(self.stem_features, 7, 2, options=self.options, name="conv0")(x)
    x = max_pool(nn.relu(norm("norm0", x)), 3, 2, 1, self.options)
    for block, size in enumerate(self.block_sizes, start=1):
      if block > 1:
        name = f"transition{block - 1}"
        x = nn.relu(norm(f"{name}_norm", x))
        x = conv(x.shape[-1] // 2, 1, options=self.options, name=f"{name}_conv")(x)
        x = average_pool(x)
      for i in range(1, size + 1):
        name = f"denseblock{block}_denselayer{i}"
        x = DenseLayer(self.growth, self.options, name=name)(x, train, mask)
    return nn.relu(norm("norm5", x))


def torch_name(name: str) -> str:
  """denseblock1_denselayer2.norm1.weight as features.denseblock1.denselayer2.norm1.weight."""
  return "features." + re.sub(r"^(denseblock\d+|transition\d+)_", r"\1.", name)


def name_of_file(name: str, network: str) -> str | None:
  """Torchvision's files still have the names of its first version, as denselayer2.norm.1."""
  name = re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", name)
  return without_classifier(name, network)


FAMILY = Family(
  networks={
    "densenet121": functools.partial(DenseNet, (6, 12, 24, 16)),
    "densenet161": functools.partial(DenseNet, (6, 12, 36, 24), growth=48, stem_features=96),
    "densenet169": functools.partial(DenseNet, (6, 12, 32, 32)),
    "densenet201": functools.partial(DenseNet, (6, 12, 48, 32)),
  },
  names=Names(torch_name, mark=r"features\.(dense|trans|conv|norm)", of_file=name_of_file),
  weights={
    "densenet121": torchvision_file("densenet121-a639ec97.pth"),
    "densenet161": torchvision_file("densenet161-8d451a50.pth"),
    "densenet169": torchvision_file("densenet169-b2777c0a.pth"),
    "densenet201": torchvision_file("densenet201-c1103571.pth"),
  },
)
