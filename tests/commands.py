"""The commands as a user gives them."""

import os
import pathlib
import subprocess
import sys

# What is run is tiny: compiling it well takes longer than running it.
FAST_COMPILATION = (
  "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
  "--xla_cpu_use_fusion_emitters=false"
)
ROOT = pathlib.Path(__file__).parent.parent


def command(module, *arguments, cache):
  """Runs `python -m experiments.MODULE` from the repository."""
  env = {**os.environ, "JPROTOP_CACHE": str(cache), "XLA_FLAGS": FAST_COMPILATION}
  return subprocess.run(
    [sys.executable, "-m", f"experiments.{module}", *map(str, arguments)],
    cwd=ROOT,
    env=env,
    capture_output=True,
    text=True,
    timeout=900,
  )
