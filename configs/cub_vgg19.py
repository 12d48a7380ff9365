"""The paper's VGG-19 on CUB-200-2011 (Table 1: 76.39% test accuracy), from ImageNet weights.

  python -m experiments.train --config=configs/cub_vgg19.py --config.data.dir=CUB_200_2011 \
    --workdir=runs/cub_vgg19
"""

from configs import base


def get_config():
  config = base.get_config()
  config.model.backbone = "vgg19"
  config.model.prototype_depth = 128
  return config
