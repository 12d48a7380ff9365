"""One self-contained HTML page of a run: its numbers, curves, prototypes and attacked images.

  jprotop report --workdir=runs/demo/standard
  jprotop report --workdir=RUN --out=OUT

With --out the page is about what commands wrote into OUT, and lies there.
"""

from jprotop.cli import measuring
from jprotop.experiments import EXPERIMENTS
from jprotop.experiments.pages import write_run_report
from jprotop.runs import processes


def define_flags() -> None:
  measuring.define_flags(EXPERIMENTS["training"])


def main() -> None:
  numbers = measuring.measure(EXPERIMENTS["training"])
  with processes.kept_by_first(measuring.out_folder()) as folder:
    print(f"report: {write_run_report(folder, numbers)}")
