"""The commands as a user gives them."""

import importlib.metadata
import os
import pathlib
import subprocess
import sys


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
  return _run(["-m", f"experiments.{module}"], arguments, cache)


def installed(name, *arguments, cache):
  """Runs `jprotop NAME` as the console script does."""
  return _run(["-c", "from jprotop.cli.main import main; main()", name], arguments, cache)


def _run(program, arguments, cache):
  env = {**os.environ, "JPROTOP_CACHE": str(cache), "XLA_FLAGS": FAST_COMPILATION}
  return subprocess.run(
    [sys.executable, *program, *map(str, arguments)],
    cwd=ROOT,
    env=env,
    capture_output=True,
    text=True,
    timeout=900,
  )
