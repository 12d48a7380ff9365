"""An experiment as a command: its flags, the run that it measures, and results.json."""

import pathlib

from jprotop.cli import flags
from jprotop.errors import InputError
from jprotop.experiments.experiment import Experiment
from jprotop.files import check_writable
from jprotop.runs import processes, records, results
from jprotop.runs import run as runs


def define_flags(experiment: Experiment) -> None:
  """Adds all flags of an experiment's command."""
  flags.define_workdir()
  flags.define_config(trains=False)
  flags.define_out(needed=experiment.needs_out)
  for flag in experiment.flags:
    flags.define(flag)


def measure(experiment: Experiment) -> dict:
  """Opens the run in --workdir, measures it, and keeps what was found in results.json.

  That is in --out, or in the run's folder where --out is not given.

  Returns:
    All that results.json holds now.
  """
  out = flags.FLAGS.out
  if experiment.needs_out and not out:
    raise InputError("--out is missing; name a folder for the new run, as in --out=runs/new")
  folder = flags.workdir(must_exist=True)
  target = pathlib.Path(out).expanduser() if out else folder
  processes.from_first(lambda: check_writable(target))
  run = runs.open_run(folder, changes=flags.changes_of(experiment.flags))
  with processes.kept_by_first(target) as place:
    results.read_results(place)  # What it cannot be added to is said now, not after the work.
    record = experiment.measure(run, place, **flags.arguments_of(experiment.flags))
    records.check_record(record, experiment.record, experiment.name)
    found = results.update_results(
      place,
      run.config,
      experiment.name,
      {experiment.name: lambda before: experiment.merge(before, record)},
      data=run.info["data"],
    )
    for line in experiment.tell(record, place):
      print(line)
  return found
