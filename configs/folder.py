"""Your own images: DIR/train/CLASS/*.jpg and DIR/test/CLASS/*.jpg, boxes in DIR/boxes.txt if any.

  jprotop reproduce --config=configs/folder.py --config.data.dir=DIR \
    --workdir=runs/mine

A small ResNet at 112 px from scratch, for a laptop; see configs/cub_resnet18.py for the paper's.
"""

from jprotop.runs.config_files import named_config


def get_config(network="standard"):
  config = named_config("cub_small", network)
  config.train.data.name = "folder"
  return config
