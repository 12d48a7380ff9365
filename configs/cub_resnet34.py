"""The paper's ResNet-34 on CUB-200-2011 (Table 1: 79.58% test accuracy).

  jprotop reproduce --config=configs/cub_resnet34.py --config.data.dir=CUB_200_2011 \
    --workdir=runs/resnet34

Starts from torchvision's ImageNet weights; configs/cub_resnet18.py says what to do without them.
"""

from jprotop.runs import config as base


def get_config(network="standard"):
  config = base.get_config(network)
  config.train.init.backbone = "torchvision"
  config.train.model.backbone = "resnet34"
  config.train.model.prototype_depth = 256
  config.train.adversarial.joint_epochs = 5  # App. F.1: 10 epochs, with the 5 warm ones.
  return config
