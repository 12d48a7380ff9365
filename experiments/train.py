"""Trains a prototype network: warm, joint, push, last layer. A killed run goes on where it was.

  python -m experiments.train --config=configs/demo.py --workdir=runs/demo

Any config value can be changed: --config.data.dir=DIR --config.seed=1. See configs/base.py.
"""

from ml_collections import config_flags

from experiments import cli
from jprotop.training import loop

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, such as configs/demo.py.")


def config_dict() -> dict:
  """The --config given, as plain values."""
  from jprotop.errors import InputError

  if _CONFIG.value is None:
    raise InputError("--config is missing; name a config file, as in --config=configs/demo.py")
  return _CONFIG.value.to_dict()


def main() -> None:
  workdir = cli.workdir()
  loop.train(config_dict(), str(workdir))
  print(f"Trained: {workdir}. Next: python -m experiments.evaluate --workdir={workdir}")


if __name__ == "__main__":
  cli.run(main)
