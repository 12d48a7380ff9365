"""A backbone: four strided convolutions.

jprotop train --config=tiny --config.extensions=plain_net.py \
  --config.train.model.backbone=plain_net --workdir=RUN
"""

import flax.linen as nn

from jprotop.networks.families import Family, register
from jprotop.networks.layers import BatchNorm, LayerOptions, conv


class PlainNet(nn.Module):
  """[N, H, W, 3] normalised images to [N, H / 16, W / 16, features]."""

  features: int = 32
  options: LayerOptions = LayerOptions()

  @nn.compact
  def __call__(self, x, train=False, mask=None):
    for layer in range(4):
      x = conv(self.features, 3, 2, options=self.options, name=f"conv{layer}")(x)
      x = nn.relu(BatchNorm(self.options, name=f"bn{layer}")(x, train, mask))
    return x


register(Family(networks={"plain_net": PlainNet}))
