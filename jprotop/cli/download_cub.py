"""Download CUB-200-2011 (1.2 GB) from its official page, unless it is there; its hash is checked.

  jprotop download-cub --dir=data

Then: --config.data.dir=data/CUB_200_2011.tgz
"""

from absl import flags

from jprotop.data import cub
from jprotop.files import user_path


def define_flags() -> None:
  flags.DEFINE_string("dir", "data", "Folder to put CUB_200_2011.tgz into.")


def main() -> None:
  path = cub.download(user_path(flags.FLAGS.dir))
  print(f"{path} is complete; use it with --config.data.dir={path}")
