"""CUB, or its first ten classes, on a machine without an accelerator: a small ResNet, 112 px.

  python -m experiments.reproduce --config=configs/cub_small.py --config.data.dir=CUB_200_2011 \
    --workdir=runs/cub_small

From scratch: first a spell as a plain classifier, then the phases of the paper.
"""

from configs import base


def get_config(variant="standard"):
  config = base.get_config(variant)
  config.data.image_size = 112
  config.data.copies = 12
  config.model.backbone = "resnet_small"
  # With 27 images a class, more prototypes would not all find a patch: those left far from any
  # cost accuracy in the push.
  config.model.prototypes_per_class = 3
  config.model.prototype_depth = 32
  training = config.training
  training.batch_size = 40
  training.pretrain.epochs = 8
  training.warm.epochs = 2
  training.warm.learning_rate.prototypes = 1e-2
  training.joint.epochs = 7
  training.joint.learning_rate.update({"features": 3e-4, "prototypes": 1e-2})
  training.joint.decay_every = 6
  training.last_layer.epochs = 3
  config.adversarial.last_layer_epochs = 3
  training.last_layer.learning_rate.last_layer = 1e-3
  config.attack.num_images = 60
  return config
