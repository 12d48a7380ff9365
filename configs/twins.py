"""The positive control on ToyBirds: artefacts alone tell the two twins of each class apart.

jprotop reproduce --config=configs/twins.py --only=twins --workdir=runs/twins

What `make demo` trains, on four species of which each is split into two twins. With
--config.train.data.twins=True any other config and data set makes the same of its classes.
"""

from jprotop.runs.config_files import named_config


def get_config(network="standard"):
  config = named_config("demo", network)
  data = config.train.data
  data.twins = True
  data.toy.update({"num_classes": 4, "images_per_class": 60})
  return config
