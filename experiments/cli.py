"""What every command shares: flags, quiet logs, and errors that a user can act on."""

import difflib
import hashlib
import logging
import os
import pathlib
import platform
import sys
import traceback
import warnings
from collections.abc import Callable

import jax
from absl import app, flags
from absl import logging as absl_logging
from flax.traverse_util import flatten_dict
from ml_collections import config_flags

from configs import base
from experiments import launch
from jprotop import parallel
from jprotop.data import dataset
from jprotop.errors import InputError
from jprotop.evaluation import results
from jprotop.training import processes, runs
from jprotop.training.checkpoints import read_config

# Measuring rounds its batches up to the devices, so any number of them will do.
_MEASURING_BATCH = 240
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")


def run(main: Callable[[], None], *, trains: bool = False) -> None:
  """Runs a command; what the user can mend is said in one message, with exit status 1.

  `trains`: whether it trains the run in --workdir further, whose batch the devices must divide.
  """

  def guarded(argv):
    # Orbax and TFDS tell every step through absl; our own messages go through `jprotop`.
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
      if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}; every option is written --name=value")
      # Of several processes each has one device of a CPU, unless it is told otherwise.
      parallel.use_cpu_cores(1 if launch.in_several() else _batch_size(trains))
      _keep_compiled_programs()
      with launch.joined():
        _show_log()
        main()
    except InputError as error:
      _fail(str(error), 1)
    except OSError as error:
      # A full or unwritable disk, or a file that went away, somewhere inside a library.
      _fail(f"{error}; mend that, or choose another place, and run the command again", 1)
    except KeyboardInterrupt:
      _fail("interrupted; the same command goes on from the last checkpoint", 130)
    except Exception as error:
      if not launch.in_several():
        raise
      # An ordinary end of the program would wait for the others, which wait for this process.
      if not isinstance(error, jax.errors.JaxRuntimeError):
        traceback.print_exc()
      _fail(f"{error}\n{launch.LOST}", 1)

  _show_in_help("workdir", "coordinator", "num_processes", "process_id", "peer_timeout")
  app.run(guarded, flags_parser=_parse_flags)


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
  told = jax.config.jax_compilation_cache_dir or "JAX_COMPILATION_CACHE_DIR" in os.environ
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
  settings = _config_if_given()
  if settings is None and trains and WORKDIR.value:
    settings = read_config(pathlib.Path(WORKDIR.value))
  if settings is None:
    return _MEASURING_BATCH
  return 1 if settings["protocol"] == "authors" else settings["training"]["batch_size"]


def define_config(default: str | None = None) -> None:
  """Adds --config; called by the commands that make runs."""
  try:  # With a default it looks at the given keys at once.
    config_flags.DEFINE_config_file("config", default, "Config file, such as configs/demo.py.")
  except (AttributeError, KeyError):
    _fail(_unknown_keys(sys.argv), 1)
  _show_in_help("config")


def config() -> dict:
  """The --config given, as plain values."""
  if flags.FLAGS.config is None:
    raise InputError("--config is missing; name a config file, as in --config=configs/demo.py")
  return flags.FLAGS.config.to_dict()


def _config_if_given() -> dict | None:
  """None also where a command takes no --config."""
  return config() if "config" in flags.FLAGS and flags.FLAGS.config is not None else None


def workdir(*, must_exist: bool = False) -> pathlib.Path:
  """The --workdir given; an error that says so if there is none."""
  if not WORKDIR.value:
    raise InputError("--workdir is missing; name the folder of the run, as in --workdir=runs/demo")
  path = pathlib.Path(WORKDIR.value)
  if must_exist:
    processes.from_first(lambda: _check_is_run(path))
  return path


def _check_is_run(path: pathlib.Path) -> None:
  if not (path / "config.json").exists():
    if networks := sorted(p.parent.name for p in path.glob("*/config.json")):
      raise InputError(
        f"--workdir={path} holds a study; name one of its networks, as in "
        f"--workdir={path / networks[-1]} ({', '.join(networks)})"
      )
    raise InputError(
      f"--workdir={path} holds no run; train one with python -m experiments.train "
      f"--config=configs/demo.py --workdir={path}"
    )


def define_images() -> None:
  """Adds --images, which `jprotop.data.own_images.from_argument` reads."""
  flags.DEFINE_string(
    "images",
    None,
    "Test-set indices (3,17), image files or a folder (used whole: crop them as the network's "
    "training images were), or a float32 .npy [N, S, S, 3] in [0, 1].",
  )
  _show_in_help("images")


def define_drawing(what: str) -> None:
  """Adds --seed, which decides `what`, and --out, where `measure_run` writes."""
  flags.DEFINE_integer("seed", 0, f"Of {what}.", lower_bound=0)
  flags.DEFINE_string("out", None, "Folder for what it writes; default: the run's own.")
  _show_in_help("seed", "out")


def _show_in_help(*names: str) -> None:
  """absl's --help lists the flags of the command's own file; adds those that this file defines."""
  for name in names:
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


def integers(flag: str, items: list[str] | None, what: str) -> list[int] | None:
  """["3", "17"], given in --FLAG, to [3, 17].

  Raises:
    InputError: one is no integer; the message says `what` they must be.
  """
  try:
    return None if items is None else [int(item) for item in items]
  except ValueError as error:
    raise InputError(f"--{flag}={','.join(items)} must be {what}, as in --{flag}=3,17") from error


def measure_run(command: str, measure: Callable[..., dict], **arguments) -> dict:
  """Opens the run in --workdir, measures it, and keeps what was found in results.json.

  That is in --out, or in the run's folder where --out is not given or the command has none.

  Args:
    measure: takes the Run, the folder to write into and `arguments`; returns sections by name.

  Returns:
    All that results.json holds now.
  """
  folder = workdir(must_exist=True)
  run = runs.open_run(folder)
  out = pathlib.Path(getattr(flags.FLAGS, "out", None) or folder)
  with processes.kept_by_first(out) as place:
    sections = measure(run, place, **arguments)
    return results.update_results(place, run.config, command, **sections)


def _parse_flags(argv: list[str]) -> list[str]:
  """absl's parser, with a plain message where a config file or key does not exist."""
  try:
    rest = app.parse_flags_with_usage(argv)
    _config_if_given()  # Only now a file that cannot be read is noticed.
    return rest
  except (AttributeError, KeyError):
    _fail(_unknown_keys(argv), 1)
  except OSError as error:
    _fail(f"the config file cannot be read: {error}", 1)


def _unknown_keys(argv: list[str]) -> str:
  """Names every --config.KEY that there is not, and the nearest one that there is."""
  known = list(flatten_dict(base.get_config().to_dict(), sep="."))
  given = [a.lstrip("-").partition("=")[0] for a in argv if a.lstrip("-").startswith("config.")]
  wrong = [key for key in (g.removeprefix("config.") for g in given) if key not in known]
  lines = [
    f"unknown config key {key}; the nearest is {difflib.get_close_matches(key, known, 1, 0)[0]}"
    for key in wrong
  ]
  return "\n".join([*lines, "configs/base.py lists all keys"])


def _fail(message: str, status: int) -> None:
  sys.stdout.flush()
  print(f"\nerror: {message}", file=sys.stderr, flush=True)
  # Threads of a library that still prefetch must not keep a failed command alive.
  os._exit(status)
