"""ResNet backbones (He et al. 2016) in torchvision's layout, through the last ReLU."""

import functools
import re

import flax.linen as nn
from jaxtyping import Array, Float

from jprotop.networks.families import Family, Names, torchvision_file, without_classifier
from jprotop.networks.layers import BatchNorm, LayerOptions, conv
from jprotop.networks.pooling import max_pool


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a shortcut."""

  width: int
  stride: int
  options: LayerOptions
  expansion = 1

  @nn.compact
  def __call__(
    self, x: Float[Array, "N h w C"], train: bool, mask: Float[Array, " N"] | None
  ) -> Float[Array, "N h2 w2 F"]:

    def norm(name, y):
      return BatchNorm(self.options, name=name)(y, train, mask)

    y = conv(self.width, 3, self.stride, options=self.options, name="conv1")(x)
    y = nn.relu(norm("bn1", y))
    y = conv(self.width, 3, options=self.options, name="conv2")(y)
    y = norm("bn2", y)
    return nn.relu(y + _shortcut(self, x, y.shape[-1], train, mask))


class Bottleneck(nn.Module):
  """1x1, 3x3, 1x1 convolutions and a shortcut; the stride sits on the 3x3, as in torchvision."""

  width: int
  stride: int
  options: LayerOptions
  expansion = 4

  @nn.compact
  def __call__(
    self, x: Float[Array, "N h w C"], train: bool, mask: Float[Array, " N"] | None
  ) -> Float[Array, "N h2 w2 F"]:

    def norm(name, y):
      return BatchNorm(self.options, name=name)(y, train, mask)

    y = conv(self.width, 1, options=self.options, name="conv1")(x)
    y = nn.relu(norm("bn1", y))
    y = conv(self.width, 3, self.stride, options=self.options, name="conv2")(y)
    y = nn.relu(norm("bn2", y))
    y = conv(self.width * self.expansion, 1, options=self.options, name="conv3")(y)
    y = norm("bn3", y)
    return nn.relu(y + _shortcut(self, x, y.shape[-1], train, mask))


def _shortcut(block: BasicBlock | Bottleneck, x, features: int, train, mask):
  """Identity, or a strided 1x1 convolution where the shape changes."""
  if block.stride == 1 and x.shape[-1] == features:
    return x
  x = conv(features, 1, block.stride, options=block.options, name="downsample_conv")(x)
  return BatchNorm(block.options, name="downsample_bn")(x, train, mask)


class ResNet(nn.Module):
  """Stem and stages.

  Attributes:
    block: BasicBlock or Bottleneck.
    stage_sizes: blocks in each stage.
    widths, strides: of each stage; the stem before them reduces by 4.
  """

  block: type[nn.Module]
  stage_sizes: tuple[int, ...]
  widths: tuple[int, ...] = (64, 128, 256, 512)
  strides: tuple[int, ...] = (1, 2, 2, 2)
  options: LayerOptions = LayerOptions()

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "N H W 3"],
    train: bool = False,
    mask: Float[Array, " N"] | None = None,
  ) -> Float[Array, "N h w F"]:
    x = conv(self.widths[0], 7, 2, options=self.options, name="conv1")(x)
    x = nn.relu(BatchNorm(self.options, name="bn1")(x, train, mask))
    x = max_pool(x, 3, 2, 1, self.options)
    for stage, (size, width, stride) in enumerate(zip(self.stage_sizes, self.widths, self.strides)):
      for i in range(size):
        name = f"layer{stage + 1}_{i}"
        block = self.block(width, stride if i == 0 else 1, self.options, name=name)
        x = block(x, train, mask)
    return x


def torch_name(name: str) -> str:
  """layer2_0.downsample_conv.weight as layer2.0.downsample.0.weight."""
  name = re.sub(r"^layer(\d)_(\d+)\.", r"layer\1.\2.", name)
  return name.replace(".downsample_conv.", ".downsample.0.").replace(
    ".downsample_bn.", ".downsample.1."
  )


def name_of_file(name: str, network: str) -> str | None:
  """Torchvision's files have our names; those of iNaturalist (BBN) are known, too.

  Of BBN's two last blocks `cb_block` is layer4.2, and `rb_block` is layer4.3 of resnet50_inat,
  which has one more block than ResNet-50, where it is left out.
  """
  if name.startswith("backbone.rb_block.") and network != "resnet50_inat":
    return None
  if name.startswith("backbone."):
    name = re.sub(r"^backbone\.rb_block\.", "layer4.3.", name)
    name = re.sub(r"^backbone\.cb_block\.", "layer4.2.", name)
    return name.removeprefix("backbone.")
  return without_classifier(name, network)


_basic, _bottleneck = (functools.partial(ResNet, block) for block in (BasicBlock, Bottleneck))
FAMILY = Family(
  networks={
    # For machines without an accelerator: a tenth of ResNet-18's work, and a grid of 1/16.
    "resnet_small": functools.partial(_basic, (1, 1, 1), widths=(32, 64, 128), strides=(1, 2, 2)),
    "resnet18": functools.partial(_basic, (2, 2, 2, 2)),
    "resnet34": functools.partial(_basic, (3, 4, 6, 3)),
    "resnet50": functools.partial(_bottleneck, (3, 4, 6, 3)),
    # As networks with iNaturalist weights have it: the file's second last block is one more.
    "resnet50_inat": functools.partial(_bottleneck, (3, 4, 6, 4)),
    "resnet101": functools.partial(_bottleneck, (3, 4, 23, 3)),
    "resnet152": functools.partial(_bottleneck, (3, 8, 36, 3)),
  },
  names=Names(torch_name, mark=r"layer\d", of_file=name_of_file),
  weights={
    "resnet18": torchvision_file("resnet18-5c106cde.pth"),
    "resnet34": torchvision_file("resnet34-333f7ec4.pth"),
    "resnet50": torchvision_file("resnet50-19c8e357.pth"),
    "resnet101": torchvision_file("resnet101-5d3b4d8f.pth"),
    "resnet152": torchvision_file("resnet152-b121ed2d.pth"),
  },
)
