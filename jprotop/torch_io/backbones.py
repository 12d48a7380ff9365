"""The start of a training: a backbone's weights from torchvision, a package, or a file."""

import pathlib

from jprotop.errors import InputError
from jprotop.networks.families import family_of, family_of_names
from jprotop.torch_io import names, packaged, torch_files, torchvision

# What a config's `init.backbone` may be besides a path.
SOURCES = TORCHVISION, PACKAGE = ("torchvision", "package")


def locate(source: str, backbone: str, cache: pathlib.Path | None = None) -> pathlib.Path:
  """The file of a config's `init.backbone`.

  That is a path; or "torchvision", which is downloaded once; or "package", an installed one's.

  Raises:
    InputError: there is no such file, or it cannot be had.
  """
  if source == TORCHVISION:
    return torchvision.weights_file(backbone, cache)
  if source == PACKAGE:
    return packaged.weights_file(backbone)
  path = pathlib.Path(source)
  if not path.is_file():
    raise InputError(
      f"train.init.backbone={source} is no file; give a .pth file, 'torchvision', 'package', or "
      "nothing to start from random weights"
    )
  return path


def load(path: pathlib.Path, backbone: str) -> dict:
  """Flax variables of a file, as names.backbone_from_state_dict returns them.

  Raises:
    InputError: it is no file of PyTorch, or its arrays are not those of the backbone.
  """
  state = torch_files.read(path).state
  try:
    return names.backbone_from_state_dict(backbone, state)
  except InputError as error:
    problem = str(error)
    other, share = family_of_names(state)
    # A list of all arrays would say nothing where the whole network is another one.
    if share > 0.5 and other is not family_of(backbone):
      problem = f"it is a file of one of {', '.join(other.networks)}, not of {backbone}"
    raise InputError(f"{path}: {problem}") from error
