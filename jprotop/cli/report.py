"""One self-contained HTML page of a run: its numbers, curves, prototypes and attacked images.

jprotop report --workdir=runs/demo/standard
"""

from jprotop.cli import flags, measuring
from jprotop.experiments import EXPERIMENTS
from jprotop.experiments.pages import write_run_report


def define_flags() -> None:
  measuring.define_flags(EXPERIMENTS["training"])


def main() -> None:
  numbers = measuring.measure(EXPERIMENTS["training"])
  print(f"report: {write_run_report(flags.workdir(), numbers)}")
