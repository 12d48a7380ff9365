"""Download CUB-200-2011 (1.2 GB) from its official page, unless it is there; its hash is checked.

  jprotop download-cub --dir=data

Then: --config.data.dir=data/CUB_200_2011.tgz
"""

import pathlib

from absl import flags

from jprotop.data import cub


def define_flags() -> None:
  flags.DEFINE_string("dir", "data", "Folder to put CUB_200_2011.tgz into.")


def main() -> None:
  path = cub.download(pathlib.Path(flags.FLAGS.dir).expanduser())
  print(f"{path} is complete; use it with --config.data.dir={path}")
