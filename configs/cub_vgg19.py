"""The paper's VGG-19 on CUB-200-2011 (Table 1: 76.39% test accuracy).

  jprotop reproduce --config=configs/cub_vgg19.py --config.data.dir=CUB_200_2011 \
    --workdir=runs/vgg19

Starts from torchvision's ImageNet weights; configs/cub_resnet18.py says what to do without them.
"""

from jprotop.runs import config as base


def get_config(network="standard"):
  config = base.get_config(network)
  config.train.init.backbone = "torchvision"
  config.train.model.backbone = "vgg19"
  config.train.model.prototype_depth = 128
  return config
