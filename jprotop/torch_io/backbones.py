"""The start of a training: a backbone's weights from torchvision, or from a file."""

import pathlib

from jprotop.errors import InputError
from jprotop.torch_io import names, torch_files, torchvision


def locate(source: str, backbone: str, cache: pathlib.Path | None = None) -> pathlib.Path:
  """The file of a config's `init.backbone`: a path, or "torchvision", which is downloaded once.

  Raises:
    InputError: there is no such file, or it cannot be had.
  """
  if source == "torchvision":
    return torchvision.weights_file(backbone, cache)
  path = pathlib.Path(source)
  if not path.is_file():
    raise InputError(
      f"train.init.backbone={source} is no file; give a .pth file, 'torchvision', or nothing to "
      "start from random weights"
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
    raise InputError(f"{path}: {error}") from error
