"""ResNet backbones (He et al. 2016) in torchvision's layout, through the last ReLU."""

import flax.linen as nn
import jax

from jprotop.models.layers import BatchNorm, LayerOptions, conv, max_pool


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a shortcut."""

  width: int
  stride: int
  options: LayerOptions
  expansion = 1

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
    norm = lambda name, y: BatchNorm(self.options, name=name)(y, train, mask)  # noqa: E731
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
  def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
    norm = lambda name, y: BatchNorm(self.options, name=name)(y, train, mask)  # noqa: E731
    y = conv(self.width, 1, options=self.options, name="conv1")(x)
    y = nn.relu(norm("bn1", y))
    y = conv(self.width, 3, self.stride, options=self.options, name="conv2")(y)
    y = nn.relu(norm("bn2", y))
    y = conv(self.width * self.expansion, 1, options=self.options, name="conv3")(y)
    y = norm("bn3", y)
    return nn.relu(y + _shortcut(self, x, y.shape[-1], train, mask))


def _shortcut(block: nn.Module, x, features: int, train, mask):
  """Identity, or a strided 1x1 convolution where the shape changes."""
  if block.stride == 1 and x.shape[-1] == features:
    return x
  x = conv(features, 1, block.stride, options=block.options, name="downsample_conv")(x)
  return BatchNorm(block.options, name="downsample_bn")(x, train, mask)


class ResNet(nn.Module):
  """Stem and stages; [N, H, W, 3] normalised images to [N, h, w, features].

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
  def __call__(self, x: jax.Array, train: bool = False, mask: jax.Array | None = None):
    x = conv(self.widths[0], 7, 2, options=self.options, name="conv1")(x)
    x = nn.relu(BatchNorm(self.options, name="bn1")(x, train, mask))
    x = max_pool(x, 3, 2, 1, self.options)
    for stage, (size, width, stride) in enumerate(zip(self.stage_sizes, self.widths, self.strides)):
      for i in range(size):
        name = f"layer{stage + 1}_{i}"
        block = self.block(width, stride if i == 0 else 1, self.options, name=name)
        x = block(x, train, mask)
    return x


RESNETS: dict[str, dict] = {
  # For machines without an accelerator: a tenth of ResNet-18's work, and a grid of 1/16.
  "resnet_small": dict(
    block=BasicBlock, stage_sizes=(1, 1, 1), widths=(32, 64, 128), strides=(1, 2, 2)
  ),
  "resnet18": dict(block=BasicBlock, stage_sizes=(2, 2, 2, 2)),
  "resnet34": dict(block=BasicBlock, stage_sizes=(3, 4, 6, 3)),
  "resnet50": dict(block=Bottleneck, stage_sizes=(3, 4, 6, 3)),
  # As networks with iNaturalist weights have it: the file's second last block is one more block.
  "resnet50_inat": dict(block=Bottleneck, stage_sizes=(3, 4, 6, 4)),
  "resnet101": dict(block=Bottleneck, stage_sizes=(3, 4, 23, 3)),
  "resnet152": dict(block=Bottleneck, stage_sizes=(3, 8, 36, 3)),
}
