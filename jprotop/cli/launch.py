"""One command in several processes, on one machine or many: how they meet, and what ends them."""

import contextlib
import faulthandler
import os
import subprocess
from collections.abc import Generator
from typing import Any

import jax
import numpy as np
from absl import flags

from jprotop import parallel
from jprotop.errors import InputError
from jprotop.runs import processes

_MEETING_SECONDS = 300
NAMES = ("coordinator", "num_processes", "process_id", "peer_timeout")


def define_flags() -> None:
  """The flags of a command in several processes."""
  flags.DEFINE_string(
    "coordinator",
    None,
    "Of a command in several processes: HOST:PORT, a free port where the first of them listens; or "
    "auto, on a TPU pod, with Slurm, Open MPI or Kubernetes, which tell this and the next two.",
  )
  flags.DEFINE_integer("num_processes", None, "How many.", lower_bound=1, upper_bound=100_000)
  flags.DEFINE_integer(
    "process_id", None, "Which of them: 0, 1, ...", lower_bound=0, upper_bound=100_000
  )
  flags.DEFINE_integer(
    "peer_timeout",
    100,
    "Seconds without a sign of life after which a process counts as dead, and the others end.",
    lower_bound=1,
    upper_bound=1_000_000,
  )


LOST = (
  "this process ended early: the system ended it, or another process of the command has ended, see "
  "the output of each. Give the same command again, in every process; training goes on from the "
  "last checkpoint"
)


def in_several() -> bool:
  """Whether the command was asked to run in several processes."""
  if flags.FLAGS.coordinator:
    return True
  if flags.FLAGS.num_processes is not None or flags.FLAGS.process_id is not None:
    raise InputError(
      "--num_processes and --process_id need --coordinator=HOST:PORT, the same in every process"
    )
  return False


@contextlib.contextmanager
def joined() -> Generator[None]:
  """Several processes meet, stay together for the block, and part at its end; one just runs it.

  Those but the first say nothing, for all say the same. Where one dies, the others are ended by JAX
  within --peer_timeout, and say what to do.

  Raises:
    InputError: the flags are incomplete, or the processes unlike.
  """
  if not in_several():
    yield
    return
  # absl's: where JAX ends a process, every thread's calls would hide the message.
  faulthandler.disable()
  with _last_words(f"not all processes met at {flags.FLAGS.coordinator}: {_meeting_advice()}"):
    _meet()
  with _last_words(LOST), _quiet_unless_first():
    yield
    # The first may still be writing; who ended before it would count as dead.
    processes.from_first(lambda: None)


def _meet() -> None:
  names = ("num_processes", "process_id")
  given: dict[str, Any] = {name: flags.FLAGS[name].value for name in names}
  if flags.FLAGS.coordinator != "auto":
    missing = [name for name, value in given.items() if value is None]
    if missing:
      raise InputError(f"--{missing[0]} is missing; --coordinator=HOST:PORT needs it")
    if given["process_id"] >= given["num_processes"]:
      raise InputError(
        f"--process_id={given['process_id']} must be below --num_processes="
        f"{given['num_processes']}: they count from 0"
      )
    # Each process has all the devices that it sees, also where a cluster would share them out.
    given |= {
      "coordinator_address": flags.FLAGS.coordinator,
      "cluster_detection_method": "deactivate",
    }
  # It would take SIGTERM for a warning, and the process would not end.
  jax.config.update("jax_enable_preemption_service", False)
  try:
    jax.distributed.initialize(
      **given,
      initialization_timeout=_MEETING_SECONDS,
      heartbeat_timeout_seconds=flags.FLAGS.peer_timeout,
    )
  except ValueError as error:
    raise InputError(
      f"--coordinator={flags.FLAGS.coordinator}: {error}; outside a TPU pod, Slurm, Open MPI or "
      "Kubernetes give --coordinator=HOST:PORT, --num_processes and --process_id"
    ) from error
  counts = np.bincount([device.process_index for device in jax.devices()])
  if len(set(counts)) > 1:
    raise InputError(
      f"the processes have {', '.join(map(str, counts))} devices; they must have equally many "
      "(JAX_NUM_CPU_DEVICES says how many a CPU makes, CUDA_VISIBLE_DEVICES which GPUs are seen)"
    )
  greet()


def greet() -> None:
  """The first exchange of data, while all processes are there.

  At the first one a CPU waits only half a minute for the others, which may have to prepare images;
  at those that follow, as long as they live.
  """
  add_up = parallel.map_devices(parallel.psum, split=(True,), split_outputs=False)
  add_up(np.zeros(jax.local_device_count()))
  processes.from_first(lambda: None)


def _meeting_advice() -> str:
  return (
    f"start the command {flags.FLAGS.num_processes or ''} times within "
    f"{_MEETING_SECONDS // 60} minutes, with --process_id=0 on that host, and see that the others "
    "reach it there".replace("  ", " ")
  )


@contextlib.contextmanager
def _last_words(text: str) -> Generator[None]:
  """Says `text` on stderr if the process does not live to leave the block.

  JAX ends a process whose peers are gone from within, where Python has no say; a shell that waits
  for this process to end, one way or another, has.
  """
  script = 'read -r _ || printf "\\nerror: %s\\n" "$0" >&2'
  # In a session of its own, Ctrl-C does not reach it.
  shell = subprocess.Popen(
    ["sh", "-c", script, text], stdin=subprocess.PIPE, start_new_session=True
  )
  try:
    yield
  finally:
    shell.communicate(b"\n")


@contextlib.contextmanager
def _quiet_unless_first() -> Generator[None]:
  if processes.is_first():
    yield
    return
  with (
    open(os.devnull, "w") as nowhere,
    contextlib.redirect_stdout(nowhere),
    contextlib.redirect_stderr(nowhere),
  ):
    yield
