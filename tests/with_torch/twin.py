"""The twin network of the benchmark, and how its classes are pickled as the reference's are."""

import contextlib
import sys
import types

from jprotop.benchmark import torch_twin
from jprotop.benchmark.torch_twin import (
  BACKBONES,
  BasicBlock,
  Bottleneck,
  DenseNet_features,
  PPNet,
  ResNet_features,
  VGG_features,
  _DenseBlock,
  _DenseLayer,
  _Transition,
  add_on,
)

__all__ = [
  "BACKBONES",
  "BasicBlock",
  "Bottleneck",
  "DenseNet_features",
  "PPNet",
  "ResNet_features",
  "VGG_features",
  "_DenseBlock",
  "_DenseLayer",
  "_Transition",
  "add_on",
  "reference_modules",
]

_REFERENCE_MODULES = {
  "model": (PPNet,),
  "resnet_features": (ResNet_features, BasicBlock, Bottleneck),
  "vgg_features": (VGG_features,),
  "densenet_features": (DenseNet_features, _DenseLayer, _DenseBlock, _Transition),
}


@contextlib.contextmanager
def reference_modules(package: str = ""):
  """Inside, torch.save calls the classes `model.PPNet`, `resnet_features.BasicBlock`, and so on.

  torch.load finds them only inside, too, as it needs the reference's source at hand. `package`
  stands before the modules' names, as in "src.models".
  """
  parts = package.split(".") if package else []
  packages = [".".join(parts[: i + 1]) for i in range(len(parts))]
  made = {name: types.ModuleType(name) for name in packages}
  before = {kind: kind.__module__ for kinds in _REFERENCE_MODULES.values() for kind in kinds}
  for name, kinds in _REFERENCE_MODULES.items():
    name = ".".join([*parts, name])
    made[name] = types.ModuleType(name)
    # The old file format looks for the source of each class.
    made[name].__file__ = torch_twin.__file__
    for kind in kinds:
      setattr(made[name], kind.__name__, kind)
      kind.__module__ = name
  hidden = {name: sys.modules.pop(name) for name in made if name in sys.modules}
  sys.modules.update(made)
  try:
    yield
  finally:
    for name in made:
      del sys.modules[name]
    sys.modules.update(hidden)
    for kind, module in before.items():
      kind.__module__ = module
