"""An experiment as a command: its flags, the run that it measures, and results.json."""

import dataclasses
import pathlib
from typing import Any

from jprotop.cli import flags
from jprotop.errors import InputError
from jprotop.experiments.experiment import Experiment
from jprotop.files import check_writable, held, remove_if_empty, user_path, write_json
from jprotop.runs import outputs, processes, records, results
from jprotop.runs import run as runs
from jprotop.runs.run import Run


def define_flags(experiment: Experiment) -> None:
  """Adds all flags of an experiment's command."""
  flags.define_workdir()
  flags.define_config(trains=False)
  own = any(flag.apart for flag in experiment.flags)
  flags.define_out(
    "it must be given"
    if experiment.needs_out
    else "default: the run's own; with --images, a new one in it"
    if own
    else "default: the run's own"
  )
  for flag in experiment.flags:
    flags.define(flag)


def out_folder() -> pathlib.Path:
  """--out, or the run's folder where it is not given."""
  out = flags.FLAGS.out
  return user_path(out) if out else flags.workdir(must_exist=True)


def measure(experiment: Experiment) -> dict:
  """Opens the run in --workdir, measures it, and keeps what was found in results.json.

  That is in --out, or in the run's folder where --out is not given; or, where a flag asks for what
  is none of the run's measurements, in a new folder there.

  Returns:
    All that results.json holds now.
  """
  if experiment.of_file and flags.FLAGS[experiment.of_file].value:
    return _measure_file(experiment)
  if experiment.needs_out and not flags.FLAGS.out:
    raise InputError("--out is missing; name a folder for the new run, as in --out=runs/new")
  folder, target = flags.workdir(must_exist=True), out_folder()
  processes.from_first(lambda: check_writable(target))
  run = runs.open_run(folder, changes=flags.changes_of(experiment.flags))
  given = [f.name for f in experiment.flags if f.apart and flags.FLAGS[f.name].present]
  if own := bool(given and not flags.FLAGS.out):
    name = experiment.name.replace("_", "-")
    target = processes.from_first(lambda: outputs.new_folder(folder, name))
    print(f"With --{given[0]} all goes to {target}; --out chooses another folder", flush=True)
  try:
    measured = measure_into(experiment, run, target, **flags.arguments_of(experiment.flags))
  finally:
    if own:
      remove_if_empty(target)  # Where nothing came of it.
  for line in experiment.tell(measured.record, target):
    print(line)
  return measured.results


@dataclasses.dataclass(frozen=True)
class Measured:
  """What an experiment found.

  Attributes:
    record: of the experiment's kind.
    files: what it wrote; see `outputs`.
    results: all that results.json of the folder holds now.
  """

  record: Any
  files: outputs.Files
  results: dict


def measure_into(
  experiment: Experiment, run: Run, folder: pathlib.Path, *, wait: bool = False, **arguments: Any
) -> Measured:
  """Measures a run; figures and arrays come into the folder together with their numbers.

  Until all is there they are kept apart: a measurement that ends early leaves the former one whole.

  Args:
    wait: whether to wait for another command that writes into the folder.
    arguments: of the experiment's `measure`.

  Raises:
    InputError: another command writes into the folder, or its results.json cannot be added to.
  """
  name, network = experiment.name, run.config["train"]["network"]
  with processes.kept_by_first(folder) as kept, held(kept, wait=wait):
    # What it cannot be added to is said now, not after the work.
    before = outputs.files_of(results.read_results(kept), name, network)
    with outputs.apart(kept) as new:
      record = experiment.measure(run, kept if experiment.needs_out else new, **arguments)
      records.check_record(record, experiment.record, name)
      written = outputs.move(new, kept)
    merge, files = experiment.merge, {**before, **written}
    if merge is None:
      files = written
      outputs.remove(kept, {path: old for path, old in before.items() if path not in written})
    change = {name: lambda former: merge(former, record) if merge else record}
    data = run.info["data"]
    found = results.update_results(kept, run.config, name, change, files={name: files}, data=data)
  return Measured(record, written, found)


def _measure_file(experiment: Experiment) -> Any:
  """Measures a file in place of a run; the record goes to --out/NAME.json."""
  name = f"--{experiment.of_file}"
  if flags.FLAGS.workdir:
    raise InputError(f"--workdir and {name} exclude each other; give the run or the file")
  if not flags.FLAGS.out:
    raise InputError(f"--out is missing; name a folder for what {name} gives, as in --out=out")
  target = out_folder()
  processes.from_first(lambda: check_writable(target))
  with processes.kept_by_first(target) as kept, held(kept):
    with outputs.apart(kept) as new:
      record = experiment.measure(None, new, **flags.arguments_of(experiment.flags))
      records.check_record(record, experiment.record, experiment.name)
      write_json(new / f"{experiment.name}.json", record)
      outputs.move(new, kept)
    for line in experiment.tell(record, target):
      print(line)
  return record
