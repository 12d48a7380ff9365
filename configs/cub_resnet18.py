"""The paper's ResNet-18 on CUB-200-2011 (Table 1: 75.75% test accuracy, from ImageNet weights).

  jprotop reproduce --config=configs/cub_resnet18.py --config.data.dir=CUB_200_2011 \
    --workdir=runs/resnet18

Or a single network: jprotop train --config=configs/cub_resnet18.py:altered, and so on. Cost of
each: 239,760 augmented images an epoch, 31 epochs; meant for an accelerator.

Starts from torchvision's ImageNet weights. On a machine without a network give them as a file,
--config.train.init.backbone=FILE.pth, or start from nothing: --config.train.init.backbone= with
--config.train.pretrain.epochs=N, a spell as a plain classifier first.
"""

from jprotop.runs import config as base


def get_config(network="standard"):
  config = base.get_config(network)
  config.train.init.backbone = "torchvision"
  config.train.adversarial.joint_epochs = 5  # App. F.1: 10 epochs, with the 5 warm ones.
  return config
