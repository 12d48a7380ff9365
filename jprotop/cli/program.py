"""How every command runs: its devices, quiet logs, and errors that a user can act on."""

import contextlib
import hashlib
import logging
import os
import pathlib
import platform
import sys
import traceback
import warnings
from collections.abc import Callable, Generator
from typing import NoReturn

import jax
from absl import app
from absl import logging as absl_logging

from jprotop import parallel
from jprotop.cli import flags, launch
from jprotop.data import dataset
from jprotop.errors import InputError
from jprotop.runs.checkpoints import read_config

# Measuring rounds its batches up to the devices, so any number of them will do.
_MEASURING_BATCH = 240


def run(main: Callable[[], None], arguments: list[str], *, trains: bool = False) -> None:
  """Runs a command; what the user can mend is said in one message, with exit status 1.

  Args:
    arguments: those of the command line, its name first.
    trains: whether it trains the run in --workdir further, whose batch the devices must divide.
  """

  def guarded(rest):
    # Orbax and TFDS tell every step through absl; our own messages go through `jprotop`.
    absl_logging.set_verbosity(absl_logging.ERROR)
    with spoken_errors():
      if len(rest) > 1:
        raise InputError(f"unexpected argument {rest[1]!r}; every option is written --name=value")
      # Of several processes each has one device of a CPU, unless it is told otherwise.
      parallel.use_cpu_cores(1 if launch.in_several() else _batch_size(trains))
      _keep_compiled_programs()
      with launch.joined():
        _show_log()
        main()

  app.run(guarded, argv=arguments, flags_parser=_parse_flags)


def _parse_flags(arguments: list[str]) -> list[str]:
  """absl's parser, with its refusals as one message."""
  try:
    return flags.parse(arguments)
  except InputError as error:
    fail(str(error), 1)


@contextlib.contextmanager
def spoken_errors() -> Generator[None]:
  """Ends the program with one message where something goes wrong that the user can mend."""
  try:
    yield
  except InputError as error:
    fail(str(error), 1)
  except OSError as error:
    # A full or unwritable disk, or a file that went away, somewhere inside a library.
    fail(f"{error}; mend that, or choose another place, and run the command again", 1)
  except KeyboardInterrupt:
    fail("interrupted; the same command goes on from the last checkpoint", 130)
  except Exception as error:
    if not launch.in_several():
      raise
    # An ordinary end of the program would wait for the others, which wait for this process.
    if not isinstance(error, jax.errors.JaxRuntimeError):
      traceback.print_exc()
    fail(f"{error}\n{launch.LOST}", 1)


def _show_log() -> None:
  log = logging.getLogger("jprotop")
  log.addHandler(logging.StreamHandler(sys.stderr))
  log.setLevel(logging.INFO)
  log.propagate = False


def _keep_compiled_programs() -> None:
  """Programs that XLA compiled are kept in the cache, unless JAX was told where, or not to.

  Not in several processes: XLA may compile in all of them together, so that one that finds what
  another does not would leave it waiting. Each kind of CPU has its own folder, for JAX does not
  tell them apart well enough where machines share a disk.
  """
  told = jax.config.values["jax_compilation_cache_dir"] or "JAX_COMPILATION_CACHE_DIR" in os.environ
  if told or launch.in_several():
    return
  place = dataset.default_cache() / "xla" / _kind_of_cpu()
  jax.config.update("jax_compilation_cache_dir", str(place))
  # JAX would leave out what takes less than a second, and so most of a small network.
  if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
  # A full disk, or an entry that another command is writing, only costs time.
  warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


def _kind_of_cpu() -> str:
  """Names the instructions that this machine's CPU has."""
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:  # Not on Linux.
    lines = []
  features = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
  what = sorted(features) or [platform.node()]
  digest = hashlib.sha256("\n".join(what).encode()).hexdigest()[:12]
  return f"{platform.machine()}-{digest}"


def _batch_size(trains: bool) -> int:
  """Of the training, where there is one; `authors` keeps to one device, and its batch norm too."""
  config = flags.config_if_given() if flags.trains_config() else None
  if config is None and trains and flags.FLAGS.workdir:
    config = read_config(pathlib.Path(flags.FLAGS.workdir))
  if config is None:
    return _MEASURING_BATCH
  return 1 if config["train"]["protocol"] == "authors" else config["train"]["batch_size"]


def fail(message: str, status: int) -> NoReturn:
  sys.stdout.flush()
  print(f"\nerror: {message}", file=sys.stderr, flush=True)
  # Threads of a library that still prefetch must not keep a failed command alive.
  os._exit(status)
