"""ToyBirds on a laptop: what `make demo` runs, from drawing the birds to the report.

jprotop reproduce --config=configs/demo.py --workdir=runs/demo
"""

from jprotop.runs import config as base


def get_config(network="standard"):
  config = base.get_config(network)
  with config.unlocked():
    config.train.data.name = "toybirds"
    config.train.data.image_size = 112
    config.train.data.copies = 4
    config.train.model.backbone = "resnet_small"
    config.train.model.prototypes_per_class = 3
    config.train.model.prototype_depth = 32
    config.train.batch_size = 40
    config.train.pretrain.epochs = 3
    config.train.warm.epochs = 3
    config.train.warm.learning_rate.prototypes = 1e-2
    config.train.joint.epochs = 5
    config.train.joint.learning_rate.prototypes = 1e-2
    config.train.last_layer.epochs = 3
    config.train.adversarial.last_layer_epochs = 3
    config.train.last_layer.learning_rate.last_layer = 1e-3
    config.measure.attack.num_images = 40
    config.measure.success_rate.num_images = 60
    # The rules between the two protocols take minutes; --ablation of success-rate measures them.
    config.measure.success_rate.ablate = ""
    config.measure.robustness.update(
      {"num_images": 30, "num_steps": 10, "targets": 2, "queries": 50}
    )
    config.measure.transfer.update({"num_images": 10, "num_steps": 15})
    config.measure.universal.update(
      {"num_images": 40, "num_training_images": 40, "num_classes": 1, "num_steps": 15}
    )
    # It takes minutes: --only=strong_attack, or another strength, measures it.
    config.measure.attack.strength = "paper"
    config.measure.strong_attack.num_images = 20
  return config
