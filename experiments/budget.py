"""Every attack's budget: its flags, and how many images are attacked at once."""

import sys

from absl import flags

from jprotop.evaluation.attack import Budget, rows_that_fit
from jprotop.training.runs import Run

_NAMES = ("eps", "step_size", "num_steps")


class Fraction(flags.ArgumentParser):
  """A flag's number, written 0.0314 or 8/255."""

  def parse(self, argument) -> float:
    numerator, _, denominator = str(argument).partition("/")
    if denominator and float(denominator) == 0:
      raise ValueError("its denominator is 0")
    return float(numerator) / float(denominator or 1)


def define_flags() -> None:
  """--eps, --step_size and --num_steps; the run's config says what they are by default."""
  for name, text in (
    ("eps", "Largest change of a pixel value, in units of [0, 1]; paper: 8/255."),
    ("step_size", "Step in units of [0, 1]; paper: 2/255."),
  ):
    flags.DEFINE(Fraction(), name, None, text, serializer=flags.ArgumentSerializer())
  flags.DEFINE_integer("num_steps", None, "Gradient steps; paper: 40.")
  for name in _NAMES:  # --help lists the flags of the command's own file alone
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


def given() -> dict:
  """Those of the flags that were given."""
  values = {name: flags.FLAGS[name].value for name in _NAMES}
  return {name: value for name, value in values.items() if value is not None}


def of(config: dict, changes: dict) -> Budget:
  """The budget of a run's config, but for what `changes` says.

  Raises:
    InputError: a number that makes no sense.
  """
  numbers = {name: config["attack"][name] for name in _NAMES}
  return Budget(**numbers | changes)


def rows(run: Run) -> int:
  """Images to attack at once: the config's attack.batch_size, or what the devices hold."""
  return run.config["attack"]["batch_size"] or rows_that_fit(run.model, run.image_size)
