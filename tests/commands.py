"""The commands as a user gives them."""

import atexit
import functools
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile


def fast_compilation() -> str:
  """XLA's flags for what is tiny: compiling it well takes longer than running it.

  A flag that XLA does not know ends the process without a word, so each is given only where it is
  known to be.
  """
  flags = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
  jaxlib = tuple(int(part) for part in importlib.metadata.version("jaxlib").split(".")[:2])
  if jaxlib <= (0, 10):
    flags.append("--xla_cpu_use_fusion_emitters=false")
  return " ".join(flags)


FAST_COMPILATION = fast_compilation()
ROOT = pathlib.Path(__file__).parent.parent


def command(module, *arguments, cache):
  """Runs `python -m experiments.MODULE` from the repository."""
  return _run(f"experiments.{module}", arguments, cache)


def installed(name, *arguments, cache):
  """Runs `jprotop NAME` as the console script does."""
  return _run(None, [name, *arguments], cache)


def _run(module, arguments, cache):
  arguments = [str(argument) for argument in arguments]
  with tempfile.TemporaryDirectory() as folder:
    out, err = (pathlib.Path(folder) / name for name in ("out", "err"))
    request = {
      "module": module,
      "arguments": arguments,
      "env": {**os.environ, "JPROTOP_CACHE": str(cache), "XLA_FLAGS": FAST_COMPILATION},
      "timeout": 900,
      "out": str(out),
      "err": str(err),
    }
    server = _server()
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    status = int(server.stdout.readline())
    return subprocess.CompletedProcess(arguments, status, out.read_text(), err.read_text())


@functools.cache
def _server():
  """A process that runs the commands of this one."""
  server = subprocess.Popen(
    [sys.executable, ROOT / "tests/command_server.py"],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  atexit.register(server.communicate)
  return server
