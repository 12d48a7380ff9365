"""The smallest whole run, for tests: 3 ToyBirds classes, one epoch a phase, well under a minute."""

from configs import base


def get_config(variant="standard"):
  config = base.get_config(variant)
  config.data.name = "toybirds"
  config.data.image_size = 64
  config.data.copies = 2
  config.data.validation_share = 0.2
  config.data.toy.update({"num_classes": 3, "images_per_class": 6, "size": 64})
  config.model.backbone = "resnet_small"
  config.model.prototypes_per_class = 2
  config.model.prototype_depth = 16
  training = config.training
  training.batch_size = training.push_batch_size = training.evaluation_batch_size = 8
  for phase in ("pretrain", "warm", "joint", "last_layer"):
    training[phase].epochs = 1
  config.attack.num_images = 4
  config.attack.num_steps = 2
  config.attack.batch_size = 4
  config.success_rate.num_images = 4
  config.robust.num_steps = 2
  return config
