"""From nothing to the report: train, evaluate, attack, and write it up. This is `make demo`.

  python -m experiments.reproduce --config=configs/demo.py --workdir=runs/demo

Run again, it continues: a finished training is not repeated.
"""

from experiments import cli, evaluate, head_on_stomach, report
from jprotop.training import loop


def main() -> None:
  workdir = cli.workdir()
  dataset = loop.train(cli.config(), str(workdir))
  evaluate.evaluate(workdir, dataset)
  head_on_stomach.attack_run(workdir, dataset)
  print(f"Report: {report.write_report(workdir, dataset).resolve()}")


if __name__ == "__main__":
  cli.define_config()
  cli.run(main)
