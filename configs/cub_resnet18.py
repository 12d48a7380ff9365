"""The paper's ResNet-18 on CUB-200-2011 (Table 1: 75.75% test accuracy, from ImageNet weights).

  python -m experiments.reproduce --config=configs/cub_resnet18.py --config.data.dir=CUB_200_2011 \
    --workdir=runs/resnet18

Or a single network: experiments.train --config=configs/cub_resnet18.py:jpeg, and so on. Cost of
each: 239,760 augmented images an epoch, 31 epochs; meant for an accelerator. That figure starts
from ImageNet weights, which jprotop cannot load yet: from random ones add
--config.training.pretrain.epochs=N, a spell as a plain classifier first.
"""

from configs import base


def get_config(variant="standard"):
  return base.get_config(variant)
