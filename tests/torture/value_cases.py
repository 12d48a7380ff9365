"""Values of config keys and flags, as on the command line: taken as they are, or refused."""

import math
import pathlib
import re

import numpy as np
from absl import flags as absl_flags
from flax.traverse_util import flatten_dict

from configs import tiny
from jprotop.cli import flags, launch
from jprotop.cli.main import command_of
from jprotop.data import own_images
from jprotop.experiments import EXPERIMENTS
from jprotop.experiments.experiment import whole_numbers
from jprotop.experiments.head_on_stomach import parse_cells
from jprotop.runs import config as config_lib
from jprotop.runs.config_checks import check_config, check_measuring
from jprotop.runs.config_keys import apply_changes
from jprotop.runs.config_numbers import Number

DEFAULTS = flatten_dict(config_lib.defaults(), sep=".")
TEXTS = (
  *("nan", "NaN", "inf", "-inf", "1e999", "-1e999", "1e308", "-1", "0", "-0.0", "1", "1.5", "1/0"),
  *("8/255", "0/0", "1/nan", "1e-320", "", " ", "x", "true", "None", "[1]", "{}", "()", "0x10"),
  *("1_000", "１", "9" * 30, "9" * 400, "9" * 5000, "-" + "9" * 400, "0,0", "1,2", "0,0:1,1"),
  *("~nosuchuser/x", "/dev/zero", "/proc/self/mem", "../..", "a\nb", "\x1b[31m", "é" * 300),
  *("4294967296", "18446744073709551616", "2147483648", "10000000", "-2147483649", "1e30"),
)


def prepare(folder: pathlib.Path) -> None:
  (folder / "empty").mkdir(exist_ok=True)


def case(number: int, folder: pathlib.Path) -> tuple[str, str] | None:
  rng = np.random.default_rng([number, 2])
  before = set(absl_flags.FLAGS)
  try:
    return _trains(rng) if rng.random() < 0.5 else _measures(rng)
  finally:
    for name in set(absl_flags.FLAGS) - before:
      delattr(absl_flags.FLAGS, name)
    absl_flags.FLAGS.unparse_flags()


def _parsed(name: str, *arguments: str) -> None:
  """What the command does with its arguments before its work."""
  arguments = flags.prepare(list(arguments))
  command = command_of(name)
  launch.define_flags()
  command.define_flags()
  flags.parse([name, *arguments])


def _trains(rng: np.random.Generator) -> tuple[str, str] | None:
  key, text = str(rng.choice(list(DEFAULTS))), str(rng.choice(TEXTS))
  _parsed("train", "--config=tiny", f"--config.{key}={text}")
  taken = check_config(flags.config())
  return _judged(key, text, flatten_dict(taken, sep=".")[key])


def _measures(rng: np.random.Generator) -> tuple[str, str] | None:
  experiment = EXPERIMENTS[str(rng.choice(list(EXPERIMENTS)))]
  if not experiment.flags:
    return None
  flag, text = experiment.flags[rng.integers(len(experiment.flags))], str(rng.choice(TEXTS))
  _parsed(experiment.name, f"--{flag.name}={text}")
  changes = flags.changes_of(experiment.flags)
  taken = check_measuring(apply_changes(tiny.get_config().to_dict(), changes))
  arguments = flags.arguments_of(experiment.flags)
  if flag.setting:
    return _judged(flag.setting, text, flatten_dict(taken, sep=".")[flag.setting])
  value = arguments.get(flag.name)
  if flag.name in ("prototypes",) or (flag.name == "images" and flag.kind is list):
    whole_numbers(value or [], flag.name)
  elif flag.name == "images" and value is not None and value not in ("0", "1"):
    own_images.from_argument(value, 32, _no_split)
  elif flag.name == "target_cells" and value:
    parse_cells(value)
  return None


def _no_split():
  raise own_images.InputError("there is no test set here")


def _judged(key: str, text: str, value) -> tuple[str, str] | None:
  """Whether what was taken is what was meant, within its bounds."""
  bounds = DEFAULTS[key]
  if not isinstance(bounds, Number):
    return None
  if not bounds.least <= value <= bounds.most:
    return "other", f"{key}={text} is taken, out of its bounds"
  numerator, _, denominator = text.partition("/")
  # A flag of whole numbers takes them as Python writes them, 0x10 too.
  read = float if re.fullmatch(r"[^xob]*", numerator, re.IGNORECASE) else lambda n: int(n, 0)
  meant = read(numerator) / float(denominator or 1)
  if not math.isclose(meant, value, rel_tol=1e-12, abs_tol=1e-300):
    return "other", f"{key}={text} is taken as {value}"
  return None
