"""The command `jprotop NAME`, which `python -m experiments.NAME` is in a checkout.

What commands there are: the files of this folder, and every experiment.
"""

import dataclasses
import functools
import importlib
import inspect
import sys
from collections.abc import Callable

from absl import flags as absl_flags

from jprotop.cli import flags, launch, measuring, program
from jprotop.errors import InputError
from jprotop.experiments import EXPERIMENTS, Experiment

# By what a person wants to do: names of experiments, or {name: module} of the other commands.
_GROUPS = {
  "Train, or bring a network": ("train", "import_checkpoint", "download_cub", "prune"),
  "Reproduce the paper": ("reproduce",),
  "Look at a network": ("explain", "training", "accuracy", "ensemble", "report"),
  "Put its explanations to the test": (),  # And all other experiments.
  "See what this machine does": ("benchmark",),
}
_MODULES = {
  "train": "jprotop.cli.train",
  "import_checkpoint": "jprotop.cli.import_checkpoint",
  "download_cub": "jprotop.cli.download_cub",
  "reproduce": "jprotop.cli.reproduce",
  "report": "jprotop.cli.report",
  "benchmark": "jprotop.benchmark.command",
}


@dataclasses.dataclass(frozen=True)
class Command:
  """One command.

  Attributes:
    name: with dashes.
    text: its help: what it does, and examples.
    define_flags, main: what defines its flags, and what it does once they are parsed.
    trains: of `program.run`.
  """

  name: str
  text: str
  define_flags: Callable[[], None]
  main: Callable[[], None]
  trains: bool = False

  @property
  def summary(self) -> str:
    """The first sentence of its help."""
    return self.text.split("\n\n")[0].replace("\n", " ").rstrip(".")

  @property
  def example(self) -> str:
    """The first line of its help that is a command."""
    lines = (line.strip().rstrip("\\").strip() for line in self.text.splitlines())
    return next((line for line in lines if line.startswith(f"jprotop {self.name}")), "")


def command_of(name: str) -> Command:
  """The command of that name, written with dashes or underscores.

  Raises:
    InputError: there is none.
  """
  key = name.replace("-", "_")
  if key in _MODULES:
    module = importlib.import_module(_MODULES[key])
    trains = getattr(module, "TRAINS", False)
    return Command(
      name_of(key), inspect.getdoc(module) or "", module.define_flags, module.main, trains
    )
  if key in EXPERIMENTS:
    return _experiment(EXPERIMENTS[key])
  raise InputError(f"there is no command {name!r}; jprotop --help lists them all")


def name_of(key: str) -> str:
  return key.replace("_", "-")


def _experiment(experiment: Experiment) -> Command:
  text = inspect.getdoc(sys.modules[experiment.measure.__module__]) or experiment.summary

  def measure() -> None:
    measuring.measure(experiment)

  define_flags = functools.partial(measuring.define_flags, experiment)
  return Command(name_of(experiment.name), text, define_flags, measure, experiment.trains)


def overview() -> str:
  """What `jprotop --help` says: every command by what a person wants to do, with an example."""
  named = {name for names in _GROUPS.values() for name in names}
  lines = ["jprotop: prototype networks in JAX, trained and put to the test.", ""]
  for title, names in _GROUPS.items():
    names = names or [name for name in EXPERIMENTS if name not in named]
    lines.append(f"{title}:")
    for name in names:
      command = command_of(name)
      lines.append(f"  {command.name:<18} {command.summary}")
      lines += [f"  {'':<18}   {command.example}"] if command.example else []
    lines.append("")
  return "\n".join([*lines, "jprotop NAME --help says what a command takes.", ""])


def help_of(command: Command) -> str:
  """What `jprotop NAME --help` says: the text, then a line or two a flag."""
  lines = [command.text, "", "flags:"]
  own = set(absl_flags.FLAGS) - _ABSL_FLAGS - set(launch.NAMES)
  for name in [*sorted(own - {"config"}), *launch.NAMES]:
    flag = absl_flags.FLAGS[name]
    default = "" if flag.default is None else f" (default: {flag.value})"
    lines.append(f"  --{name}: {flag.help}{default}")
  if "config" in absl_flags.FLAGS:
    lines.append("  --config: a config file, or its name, and --config.KEY=VALUE for each of its")
    lines.append("    keys; jprotop/runs/config.py says what they mean")
  return "\n".join([*lines, ""])


_ABSL_FLAGS = set(absl_flags.FLAGS)


def main() -> None:
  """The console script."""
  start(*sys.argv[1:])


def start(*arguments: str) -> None:
  """Runs `jprotop ARGUMENTS`."""
  with program.spoken_errors():
    if not arguments or arguments[0] in ("--help", "-h", "help", "--helpfull"):
      flags.prepare(list(arguments))
      print(overview(), end="")
      return
    name, *rest = arguments
    asked = [item for item in rest if item in ("--help", "-h", "--helpfull")]
    rest = flags.prepare([item for item in rest if item not in asked])
    command = command_of(name)
    launch.define_flags()
    command.define_flags()
    if asked:
      print(help_of(command), end="")
      return
  program.run(command.main, [f"jprotop {command.name}", *rest], trains=command.trains)
