"""Runs commands, each in a process of its own, without importing JAX and TFDS for each again.

It has imported what all of them import, which takes seconds, and forks once a command. Nothing of
JAX has been used by then, so that a command chooses its devices and flags as in a new process.
Requests are lines of JSON on stdin; the answers, exit statuses, are lines on stdout.
"""

import json
import os
import pathlib
import runpy
import signal
import sys

ROOT = pathlib.Path(__file__).parent.parent
sys.path[0] = str(ROOT)  # As `python -m` in the repository has it.

from jprotop.benchmark import command  # noqa: E402, F401
from jprotop.cli import import_checkpoint, main, reproduce, train  # noqa: E402, F401
from jprotop.report import canvas  # noqa: E402, F401


def serve() -> dict | None:
  """Answers requests until there are no more; in each one's own process, returns it."""
  for line in sys.stdin:
    request = json.loads(line)
    process = os.fork()
    if not process:
      return request
    _, status = os.waitpid(process, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
  return None


def become(request: dict) -> None:
  """Makes this process the one that was asked for."""
  signal.alarm(request["timeout"])
  os.environ.clear()
  os.environ.update(request["env"])
  outputs = (os.open(request[name], os.O_WRONLY | os.O_CREAT, 0o600) for name in ("out", "err"))
  for number, file in enumerate([os.open(os.devnull, os.O_RDONLY), *outputs]):
    os.dup2(file, number)
    os.close(file)


def run(module: str | None, arguments: list[str]) -> None:
  """`python -m MODULE ARGUMENTS`, or the console script `jprotop ARGUMENTS`."""
  sys.argv = [module or "jprotop", *arguments]
  if module:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
  else:
    main.main()


if __name__ == "__main__" and (asked := serve()):
  become(asked)
  run(asked["module"], asked["arguments"])
