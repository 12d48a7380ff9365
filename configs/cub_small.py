"""CUB, or its first ten classes, on a machine without an accelerator: a small ResNet, 112 px.

  python -m experiments.train --config=configs/cub_small.py --config.data.dir=CUB_200_2011 \
    --workdir=runs/cub_small

From scratch: first a spell as a plain classifier, then the phases of the paper.
"""

from configs import base


def get_config():
  config = base.get_config()
  config.data.image_size = 112
  config.data.copies = 8
  config.model.backbone = "resnet_small"
  config.model.prototype_depth = 64
  training = config.training
  training.batch_size = 40
  training.pretrain.epochs = 12
  training.warm.epochs = 3
  training.joint.epochs = 8
  training.joint.learning_rate.features = 3e-4
  training.joint.decay_every = 6
  training.last_layer.epochs = 6
  training.last_layer.learning_rate.last_layer = 1e-3
  config.attack.num_images = 60
  return config
