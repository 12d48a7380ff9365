"""ImageNet weights as torchvision publishes them: which file, from where, kept where."""

import pathlib

from jprotop.data.dataset import default_cache
from jprotop.download import Hash, fetch
from jprotop.errors import InputError

BASE_URL = "https://download.pytorch.org/models/"
# By backbone. The eight digits begin the file's SHA256.
FILES = {
  "resnet18": "resnet18-5c106cde.pth",
  "resnet34": "resnet34-333f7ec4.pth",
  "resnet50": "resnet50-19c8e357.pth",
  "resnet101": "resnet101-5d3b4d8f.pth",
  "resnet152": "resnet152-b121ed2d.pth",
  "vgg11": "vgg11-bbd30ac9.pth",
  "vgg13": "vgg13-c768596a.pth",
  "vgg16": "vgg16-397923af.pth",
  "vgg19": "vgg19-dcbb9e9d.pth",
  "vgg11_bn": "vgg11_bn-6002323d.pth",
  "vgg13_bn": "vgg13_bn-abd245e5.pth",
  "vgg16_bn": "vgg16_bn-6c64b313.pth",
  "vgg19_bn": "vgg19_bn-c79401a0.pth",
  "densenet121": "densenet121-a639ec97.pth",
  "densenet161": "densenet161-8d451a50.pth",
  "densenet169": "densenet169-b2777c0a.pth",
  "densenet201": "densenet201-c1103571.pth",
}
_FROM_SCRATCH = "--config.init.backbone= (empty) with --config.training.pretrain.epochs=N"


def weights_file(
  backbone: str, cache: pathlib.Path | None = None, *, base_url: str = BASE_URL
) -> pathlib.Path:
  """The file of ImageNet weights of a backbone, downloaded to CACHE/weights unless it is there.

  Args:
    backbone: a key of FILES.
    cache: None: `default_cache()`.
    base_url: the folder of the files on the server, with its final slash.

  Raises:
    InputError: torchvision has no file for the backbone; or it cannot be had, see
      `jprotop.download.fetch`.
  """
  if backbone not in FILES:
    raise InputError(
      f"torchvision has no ImageNet weights for model.backbone={backbone!r}, only for "
      f"{', '.join(FILES)}; choose one of them, or train from scratch: {_FROM_SCRATCH}"
    )
  name = FILES[backbone]
  target = (cache or default_cache()) / "weights" / name
  url = base_url + name
  digits = pathlib.PurePath(name).stem.rpartition("-")[2]
  return fetch(
    url,
    target,
    check=Hash("sha256", digits),
    remedy=(
      f"on a machine without a network, download {url} elsewhere and put it at {target}, or give a "
      f"file with --config.init.backbone=PATH, or train from scratch: {_FROM_SCRATCH}"
    ),
  )
