"""CUB, or its first ten classes, on a machine without an accelerator: a small ResNet, 112 px.

  jprotop reproduce --config=configs/cub_small.py --config.data.dir=CUB_200_2011 \
    --workdir=runs/cub_small

From scratch: first a spell as a plain classifier, then the phases of the paper.
"""

from jprotop.runs import config as base


def get_config(network="standard"):
  config = base.get_config(network)
  config.train.data.image_size = 112
  config.train.data.copies = 12
  config.train.model.backbone = "resnet_small"
  # With 27 images a class, more prototypes would not all find a patch: those left far from any
  # cost accuracy in the push.
  config.train.model.prototypes_per_class = 3
  config.train.model.prototype_depth = 32
  train = config.train
  train.batch_size = 40
  train.pretrain.epochs = 8
  train.warm.epochs = 2
  train.warm.learning_rate.prototypes = 1e-2
  train.joint.epochs = 7
  train.joint.learning_rate.update({"features": 3e-4, "prototypes": 1e-2})
  train.joint.decay_every = 6
  train.last_layer.epochs = 3
  config.train.adversarial.last_layer_epochs = 3
  train.last_layer.learning_rate.last_layer = 1e-3
  config.measure.attack.num_images = 60
  return config
