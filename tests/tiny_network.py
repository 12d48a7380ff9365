"""A network for tests, where any will do: a stem, batch norm, one block with its shortcut.

Tracing and compiling grow with the number of layers, and most of what the tests cost is that.
"""

import functools

from jprotop.networks import resnet
from jprotop.networks.families import Family, Names, register

_resnet = functools.partial(resnet.ResNet, resnet.BasicBlock, (1,), widths=(32,), strides=(4,))
# Names of its arrays in PyTorch, but none by which a file would be taken for one of it.
register(Family({"resnet_tiny": _resnet}, names=Names(resnet.torch_name, mark=r"(?!)")))

TINY = {
  "backbone": "resnet_tiny",
  "addon": "regular",
  "prototypes_per_class": 2,
  "prototype_depth": 8,
  "similarity": "log",
  "distance": "squared_l2",
  "dtype": "float32",
}
