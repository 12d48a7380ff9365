"""The smallest whole run, for tests: 3 ToyBirds classes, one epoch a phase, well under a minute."""

from jprotop.runs import config as base


def get_config(network="standard"):
  config = base.get_config(network)
  config.train.data.name = "toybirds"
  config.train.data.image_size = 64
  config.train.data.copies = 2
  config.train.data.validation_share = 0.2
  config.train.data.toy.update({"num_classes": 3, "images_per_class": 6, "size": 64})
  config.train.model.backbone = "resnet_small"
  config.train.model.prototypes_per_class = 2
  config.train.model.prototype_depth = 16
  train = config.train
  train.batch_size = 8
  config.compute.push_batch_size = config.compute.evaluation_batch_size = 8
  for phase in ("pretrain", "warm", "joint", "last_layer"):
    train[phase].epochs = 1
  config.measure.attack.num_images = 4
  config.measure.attack.num_steps = 2
  config.compute.attack_batch_size = 4
  config.measure.success_rate.num_images = 4
  config.measure.class_pgd.num_steps = 2
  config.measure.robustness.update({"num_images": 4, "num_steps": 2, "targets": 1, "queries": 2})
  config.measure.transfer.update({"num_images": 4, "num_steps": 2})
  config.measure.universal.update({"num_images": 4, "num_training_images": 4, "num_classes": 1})
  config.measure.universal.num_steps = 2
  config.measure.strong_attack.update(
    {"num_images": 2, "top_k": 2, "curve": "4", "targets": "random rectangle", "queries": 9}
  )
  return config
