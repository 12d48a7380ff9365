"""ImageNet weights as torchvision publishes them: fetched once, and kept where."""

import pathlib
from urllib.parse import urlparse

from jprotop.data.dataset import default_cache
from jprotop.download import Hash, fetch
from jprotop.errors import InputError
from jprotop.networks.families import packaged_weights, published_weights

_FROM_SCRATCH = "--config.train.init.backbone= (empty) with --config.train.pretrain.epochs=N"


def weights_file(backbone: str, cache: pathlib.Path | None = None) -> pathlib.Path:
  """The file of ImageNet weights of a backbone, downloaded to CACHE/weights unless it is there.

  Args:
    backbone: a network whose family has a weight file of it.
    cache: None: `default_cache()`.

  Raises:
    InputError: there is no such file for the backbone; or it cannot be had, see
      `jprotop.download.fetch`.
  """
  files = published_weights()
  if backbone not in files:
    packaged = "take --config.train.init.backbone=package, " * (backbone in packaged_weights())
    raise InputError(
      f"torchvision has no ImageNet weights for train.model.backbone={backbone!r}, only for "
      f"{', '.join(files)}; {packaged}choose one of them, or train from scratch: {_FROM_SCRATCH}"
    )
  url, digits = files[backbone]
  target = (cache or default_cache()) / "weights" / pathlib.PurePath(urlparse(url).path).name
  return fetch(
    url,
    target,
    check=Hash("sha256", digits),
    remedy=(
      f"on a machine without a network, download {url} elsewhere and put it at {target}, or give a "
      f"file with --config.train.init.backbone=PATH, or train from scratch: {_FROM_SCRATCH}"
    ),
  )
