"""The paper's ResNet-18 on CUB-200-2011 (Table 1: 75.75% test accuracy, from ImageNet weights).

  python -m experiments.reproduce --config=configs/cub_resnet18.py --config.data.dir=CUB_200_2011 \
    --workdir=runs/resnet18

Or a single network: experiments.train --config=configs/cub_resnet18.py:jpeg, and so on. Cost of
each: 239,760 augmented images an epoch, 31 epochs; meant for an accelerator.

Starts from torchvision's ImageNet weights. On a machine without a network give them as a file,
--config.init.backbone=FILE.pth, or start from nothing: --config.init.backbone= with
--config.training.pretrain.epochs=N, a spell as a plain classifier first.
"""

from configs import base


def get_config(variant="standard"):
  config = base.get_config(variant)
  config.init.backbone = "torchvision"
  return config
