"""Trains a prototype network: warm, joint, push, last layer. A killed run goes on where it was.

  python -m experiments.train --config=configs/demo.py --workdir=runs/demo

Any config value can be changed: --config.data.dir=DIR --config.seed=1. See configs/base.py.
"""

from experiments import cli
from jprotop.training import loop


def main() -> None:
  workdir = cli.workdir()
  loop.train(cli.config(), str(workdir))
  print(f"Trained: {workdir}. Next: python -m experiments.evaluate --workdir={workdir}")


if __name__ == "__main__":
  cli.define_config()
  cli.run(main)
