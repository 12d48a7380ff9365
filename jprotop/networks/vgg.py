"""VGG backbones (Simonyan & Zisserman 2015): torchvision's `features`, last max-pool included."""

import functools
import re

import flax.linen as nn
from jaxtyping import Array, Float

from jprotop.networks.families import Family, Names, torchvision_file
from jprotop.networks.layers import BatchNorm, LayerOptions, conv
from jprotop.networks.pooling import max_pool


class VGG(nn.Module):
  """3x3 convolutions and 2x2 max-pools.

  Layers are named by their index in torchvision's `features` list: conv0, bn1, conv3, ...

  Attributes:
    stage_sizes: convolutions before each of the five max-pools.
    batch_norm: whether each convolution is followed by batch norm.
  """

  stage_sizes: tuple[int, ...]
  batch_norm: bool = False
  widths: tuple[int, ...] = (64, 128, 256, 512, 512)
  options: LayerOptions = LayerOptions()

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "N H W 3"],
    train: bool = False,
    mask: Float[Array, " N"] | None = None,
  ) -> Float[Array, "N H//32 W//32 F"]:
    index = 0
    for size, width in zip(self.stage_sizes, self.widths):
      for _ in range(size):
        x = conv(width, 3, use_bias=True, options=self.options, name=f"conv{index}")(x)
        if self.batch_norm:
          x = BatchNorm(self.options, name=f"bn{index + 1}")(x, train, mask)
        x = nn.relu(x)
        index += 3 if self.batch_norm else 2
      x = max_pool(x, 2, 2, 0, self.options)
      index += 1
    return x


_STAGES = {
  "vgg11": (1, 1, 2, 2, 2),
  "vgg13": (2, 2, 2, 2, 2),
  "vgg16": (2, 2, 3, 3, 3),
  "vgg19": (2, 2, 4, 4, 4),
}


def torch_name(name: str) -> str:
  """conv7.weight as features.7.weight."""
  return re.sub(r"^(?:conv|bn)", "features.", name)


FAMILY = Family(
  networks={
    f"{name}{suffix}": functools.partial(VGG, sizes, batch_norm=bool(suffix))
    for name, sizes in _STAGES.items()
    for suffix in ("", "_bn")
  },
  names=Names(torch_name, mark=r"features\.\d"),
  weights={
    "vgg11": torchvision_file("vgg11-bbd30ac9.pth"),
    "vgg13": torchvision_file("vgg13-c768596a.pth"),
    "vgg16": torchvision_file("vgg16-397923af.pth"),
    "vgg19": torchvision_file("vgg19-dcbb9e9d.pth"),
    "vgg11_bn": torchvision_file("vgg11_bn-6002323d.pth"),
    "vgg13_bn": torchvision_file("vgg13_bn-abd245e5.pth"),
    "vgg16_bn": torchvision_file("vgg16_bn-6c64b313.pth"),
    "vgg19_bn": torchvision_file("vgg19_bn-c79401a0.pth"),
  },
)
