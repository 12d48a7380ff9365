"""Your own images: DIR/train/CLASS/*.jpg and DIR/test/CLASS/*.jpg, boxes in DIR/boxes.txt if any.

  python -m experiments.reproduce --config=configs/folder.py --config.data.dir=DIR \
    --workdir=runs/mine

A small ResNet at 112 px from scratch, for a laptop; see configs/cub_resnet18.py for the paper's.
"""

from configs import cub_small


def get_config(variant="standard"):
  config = cub_small.get_config(variant)
  config.data.name = "folder"
  return config
