"""The commands as a user gives them."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def command(module, *arguments, cache):
  """Runs `python -m experiments.MODULE` from the repository, on one CPU device."""
  env = {**os.environ, "JPROTOP_CACHE": str(cache), "XLA_FLAGS": ""}
  return subprocess.run(
    [sys.executable, "-m", f"experiments.{module}", *map(str, arguments)],
    cwd=ROOT,
    env=env,
    capture_output=True,
    text=True,
    timeout=300,
  )
