"""Downloads CUB-200-2011 (1.2 GB) from its official page, unless it is there; checks its hash.

  python -m experiments.download_cub --dir=data

Then: --config.data.dir=data/CUB_200_2011.tgz
"""

import pathlib

from absl import flags

from experiments import cli
from jprotop.data import cub

_DIR = flags.DEFINE_string("dir", "data", "Folder to put CUB_200_2011.tgz into.")


def main() -> None:
  path = cub.download(pathlib.Path(_DIR.value))
  print(f"{path} is complete; use it with --config.data.dir={path}")


if __name__ == "__main__":
  cli.run(main)
