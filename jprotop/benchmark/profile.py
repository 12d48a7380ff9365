"""Which operations a compiled program spends its time in, as XLA's own profiler counts them."""

import collections
import pathlib
import re
import tempfile
from collections.abc import Callable

import jax
from jax.profiler import ProfileData

# Frames around operations, and waiting: they would count what happens inside of them once more.
_FRAMES = (
  *("ThunkExecutor", "Threadpool", "SlinkyThreadPool", "end:", "H2D", "Pjit", "$", "np.", "while"),
  *("Wait", "Rendezvous", "psum"),
)


def profile(run: Callable[[], object], top: int = 8) -> list[dict]:
  """The operations that take most of a call's time over all threads, with their shares.

  The call is made once before, so that nothing is compiled. Operations are named by their kind, as
  XLA's compiler names them: ynn_fusion and conv are convolutions and matrix products on a CPU.
  """
  jax.block_until_ready(run())
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      jax.block_until_ready(run())
    files = list(pathlib.Path(folder).rglob("*.xplane.pb"))
    spent: collections.Counter = collections.Counter()
    for file in files:
      for plane in ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
          if line.name != "python":
            _count(line.events, spent)
  total = sum(spent.values())
  rows = [{"operation": name, "share": round(t / total, 3)} for name, t in spent.most_common(top)]
  rest = 1 - sum(row["share"] for row in rows)
  return [*rows, {"operation": "all others", "share": round(rest, 3)}]


def _count(events, spent: collections.Counter) -> None:
  for event in events:
    kind = re.sub(r"[._]?\d+$", "", event.name.partition(".")[0])
    if "::" not in event.name and not event.name.startswith(_FRAMES):
      spent[kind] += event.duration_ns
