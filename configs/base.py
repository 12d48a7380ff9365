"""The defaults: the paper's setup (App. B) on ResNet-18. Every other config is a delta on it.

Every config file takes the network to be trained as its argument, as in
--config=configs/demo.py:jpeg. The paper needs four:

  standard        on the images as they are (Section 3)
  jpeg            some classes' images JPEG compressed, in all splits (Section 4)
  jpeg_augmented  each image compressed with probability 0.5, drawn anew in every pass (App. F.2)
  adversarial     on images changed by fast FGSM (App. F.1)
"""

from ml_collections import ConfigDict


def get_config(variant: str = "standard") -> ConfigDict:
  config = ConfigDict()
  config.variant = variant
  config.protocol = "paper"  # or "authors": what the reference code computes, slips included
  config.seed = 0

  config.data = ConfigDict()
  config.data.name = "cub"  # cub, toybirds or folder
  config.data.dir = ""  # the CUB_200_2011 folder or .tgz, or a user's folder
  config.data.cache = ""  # prepared data; "" is $JPROTOP_CACHE or ~/.cache/jprotop
  config.data.image_size = 224
  config.data.validation_share = 0.1  # of the training images of each class
  config.data.copies = 40  # augmented copies of each image in an epoch; 0: the image itself
  # Where copies are made: host (the reference, Pillow at the crop's own resolution), or device (the
  # resized crops lie there; the same transforms as one resampling; not for the JPEG networks).
  config.data.augment = "host"
  # ToyBirds only.
  config.data.toy = ConfigDict({"num_classes": 8, "images_per_class": 30, "size": 160, "seed": 0})

  config.model = ConfigDict()
  config.model.backbone = "resnet18"
  config.model.addon = "regular"
  config.model.prototypes_per_class = 10
  config.model.prototype_depth = 128
  config.model.similarity = "log"
  config.model.distance = "squared_l2"
  config.model.dtype = "float32"  # or bfloat16; distances stay float32

  # What the backbone starts from: "" is random weights, "torchvision" ImageNet's (downloaded once),
  # or a .pth file: torchvision's, or the iNaturalist ResNet-50 of later prototype networks.
  config.init = ConfigDict({"backbone": ""})

  config.loss = ConfigDict({"cluster": 0.8, "separation": -0.08, "l1": 1e-4})

  training = config.training = ConfigDict()
  training.batch_size = 80
  training.push_batch_size = 50
  training.evaluation_batch_size = 100
  training.weight_decay = 1e-3
  training.keep_checkpoints = 2
  # A spell as a plain classifier, for a backbone that starts from nothing; 0 epochs: none.
  training.pretrain = ConfigDict(
    {
      "epochs": 0,
      "learning_rate": ConfigDict({"features": 1e-3, "classifier": 1e-3}),
      "schedule": "cosine",
    }
  )
  training.warm = ConfigDict(
    {"epochs": 5, "learning_rate": ConfigDict({"add_on": 3e-3, "prototypes": 3e-3})}
  )
  training.joint = ConfigDict(
    {
      "epochs": 6,
      "learning_rate": ConfigDict({"features": 1e-4, "add_on": 3e-3, "prototypes": 3e-3}),
      "schedule": "step",
      "decay_every": 5,
    }
  )
  training.last_layer = ConfigDict(
    {"epochs": 20, "learning_rate": ConfigDict({"last_layer": 1e-4})}
  )

  # The JPEG experiment's alteration: which classes (half of them drawn from the seed, odd labels,
  # or labels such as "0,3,5"; default: half in `paper`, odd in `authors`), and the remedy's coin.
  config.jpeg = ConfigDict({"quality": 20, "classes": "default", "seed": 0, "probability": 0.5})
  # Fast FGSM, in units of [0, 1]; and how long the adversarial network's last layer is tuned.
  config.adversarial = ConfigDict({"eps": 8 / 255, "step_size": 10 / 255, "last_layer_epochs": 1})

  # What is measured later, and how; none of this changes a training.
  config.attack = ConfigDict()
  config.attack.num_images = 20  # Head on Stomach and vanishing head
  config.attack.eps = 8 / 255
  config.attack.step_size = 2 / 255
  config.attack.num_steps = 40
  config.attack.batch_size = 0  # images at once; 0: as many as the devices hold
  config.success_rate = ConfigDict({"num_images": 200, "top_k": 5, "ablate": "standard"})
  config.robust = ConfigDict({"eps": 8 / 255, "step_size": 2 / 255, "num_steps": 10})
  return config.lock()
