"""ToyBirds on a laptop: what `make demo` runs, from drawing the birds to the report.

python -m experiments.reproduce --config=configs/demo.py --workdir=runs/demo
"""

from configs import base


def get_config(variant="standard"):
  config = base.get_config(variant)
  with config.unlocked():
    config.data.name = "toybirds"
    config.data.image_size = 112
    config.data.copies = 4
    config.model.backbone = "resnet_small"
    config.model.prototypes_per_class = 3
    config.model.prototype_depth = 32
    config.training.batch_size = 40
    config.training.pretrain.epochs = 3
    config.training.warm.epochs = 3
    config.training.warm.learning_rate.prototypes = 1e-2
    config.training.joint.epochs = 5
    config.training.joint.learning_rate.prototypes = 1e-2
    config.training.last_layer.epochs = 3
    config.adversarial.last_layer_epochs = 3
    config.training.last_layer.learning_rate.last_layer = 1e-3
    config.attack.num_images = 40
    config.success_rate.num_images = 60
  return config
