"""What an experiment is: a name with a command, a record, passages of the report and claims.

Each experiment has a file that ends in its `Experiment` and so registers all of them. Larger ones
keep their arithmetic in *_numbers.py and their wording in *_text.py; `jprotop.report` draws. The
stages of a study, the schema of results.json, the report, the command and its flags, and the parts
of `reproduce --only` are all read from the `Experiment`.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jprotop.errors import InputError, excerpt
from jprotop.files import user_path
from jprotop.runs.config import NETWORKS
from jprotop.runs.run import Run

Results = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flag:
  """A flag of an experiment's command.

  Attributes:
    name, help: as the user sees them.
    kind: str, int, float (also as a fraction), bool or list.
    default: where it is not given; None: it is not passed to `measure`.
    setting: the config key that the flag is another name for, such as measure.attack.eps; its value
      goes there, and not to `measure`.
    choices: of a str, all that is allowed.
    least, most: of an int, the lowest and the highest value; a setting has the latter of its own.
    apart: where it is given, the command writes into a new folder of its own, unless --out says
      where: what it asks for is none of the run's measurements.
  """

  name: str
  help: str
  kind: type = str
  default: Any = None
  setting: str = ""
  choices: tuple[str, ...] = ()
  least: int | None = None
  most: int = 1_000_000
  apart: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
  """Figures of one network that a passage shows: the first `most` files of a pattern."""

  network: str
  pattern: str
  most: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Passage:
  """A part of the report: what to see, then pictures, and perhaps a table.

  Attributes:
    rows: from {network: record} of the experiment to rows; columns: {key of a row: heading}.
  """

  heading: str
  caption: str
  rows: Callable[[Mapping[str, Any]], list[dict]] | None = None
  columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
  pictures: Sequence[Pictures] = ()


@dataclasses.dataclass(frozen=True)
class Beside:
  """What a study has beside the network that is measured.

  Attributes:
    runs: the networks of `Experiment.also`.
    found: what the experiment found on networks that were measured before.
  """

  runs: Mapping[str, Run] = dataclasses.field(default_factory=dict)
  found: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """One measurement, on one network at a time.

  Attributes:
    name: in results.json, in --only, and, with dashes, of the command.
    summary: what it is for, in a few words, for --help.
    measure: (run, out, beside=..., **flags) to a record; it writes figures and arrays into `out`.
    record: the type of what `measure` returns, for the schema.
    networks: those of a study that it is measured on, in order; none: only by its command.
    also: networks of a study that it takes something from.
    settings: sections of config.measure that its numbers depend on.
    parts: further names of --only, such as tables of the paper, and the networks that each needs.
    flags: of its command.
    lacks: from a config to what it would need for it, in words; nothing where it applies. A study
      leaves out what does not apply.
    in_study: from a study's config and a network to arguments of `measure` there.
    tell: from a record and the folder to the lines that its command prints.
    merge: from the record so far (None: none) and the new one to what is kept; None: the new one,
      and what was written with the former one goes away.
    passages: its parts of the report, in the order of reading.
    claims: from all results to rows of `jprotop.report.verdicts`.
    trains: whether its command trains, so that devices must divide the batch.
    needs_out: whether --out, where it makes a new run, must be given.
    of_file: a flag that names a file which is measured in place of a run; `measure` then gets None
      for it, and the record goes to --out alone.
  """

  name: str
  summary: str
  measure: Callable[..., Any]
  record: Any
  networks: tuple[str, ...] = ()
  also: tuple[str, ...] = ()
  settings: tuple[str, ...] = ()
  parts: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
  flags: tuple[Flag, ...] = ()
  tell: Callable[[Any, pathlib.Path], Iterable[str]] = lambda record, out: ()
  lacks: Callable[[Mapping], str] = lambda config: ""
  in_study: Callable[[Mapping, str], dict] = lambda config, network: {}
  merge: Callable[[Any, Any], Any] | None = None
  passages: tuple[Passage, ...] = ()
  claims: Callable[[Results], list[dict]] = lambda results: []
  trains: bool = False
  needs_out: bool = False
  of_file: str = ""

  def needs(self, network: str) -> tuple[str, ...]:
    """The networks that must be there to measure it on one of them."""
    return (network, *(name for name in self.also if name != network))


EXPERIMENTS: dict[str, Experiment] = {}


def register(experiment: Experiment) -> Experiment:
  """Adds an experiment: from then on studies, commands, results and reports know it.

  Raises:
    InputError: there is one of that name, or it needs a network that no study has.
  """
  if not isinstance(experiment, Experiment):
    raise InputError(f"{experiment!r} is no Experiment; make one with jprotop.experiments")
  if experiment.name in EXPERIMENTS:
    raise InputError(f"there is an experiment {experiment.name!r} already; choose another name")
  if not experiment.name.isidentifier():
    raise InputError(f"the experiment's name {experiment.name!r} must be letters, digits and _")
  for network in (*experiment.networks, *experiment.also):
    if network not in NETWORKS:
      raise InputError(
        f"the experiment {experiment.name} needs a network {network!r}, which no study has; it "
        f"must be one of {', '.join(NETWORKS)}"
      )
  EXPERIMENTS[experiment.name] = experiment
  return experiment


def whole_numbers(items: Sequence[str | int], flag: str) -> tuple[int, ...]:
  """The numbers that a list names, each once.

  Raises:
    InputError: one of them is none.
  """
  numbers = []
  for item in items:
    if not re.fullmatch(r" *-?[0-9]{1,9} *", str(item)):
      raise InputError(
        f"--{flag}: {excerpt(str(item))!r} is no number, or too large; write --{flag}=3,17"
      )
    numbers.append(int(item))
  return tuple(dict.fromkeys(numbers))


def check_distinct(folders: Iterable[str | pathlib.Path], flag: str) -> None:
  """InputError where a run is named twice, whose scores would then count twice."""
  seen = set()
  for folder in folders:
    place = user_path(folder).resolve()
    if place in seen:
      raise InputError(f"--{flag}: {folder} would count twice; name each run once")
    seen.add(place)


def record_kinds() -> dict[str, Any]:
  """The type of each experiment's record, by its name in results.json."""
  return {name: experiment.record for name, experiment in EXPERIMENTS.items()}
