"""Cases in processes that are started anew when they die or hang."""

import json
import os
import pathlib
import queue
import select
import subprocess
import sys
import threading

from tally import Tally

_HERE = pathlib.Path(__file__).parent
_SECONDS = 300


class Worker:
  """One process; it answers numbers of cases."""

  def __init__(self, module: str, folder: pathlib.Path):
    folder.mkdir(parents=True, exist_ok=True)
    self._begin = [sys.executable, str(_HERE / "worker.py"), module, str(folder)]
    self._log, self._process = folder / "worker.log", None

  def ask(self, number: int) -> tuple[str, str]:
    if self._process is None:
      self._start()
    try:
      print(number, file=self._process.stdin, flush=True)
      ready, _, _ = select.select([self._process.stdout], [], [], _SECONDS)
    except BrokenPipeError:
      ready = [self._process.stdout]
    if ready and (answer := self._process.stdout.readline()):
      return tuple(json.loads(answer))
    if not ready:
      self._process.kill()
    status = self.close()
    why = f"died with status {status}" if ready else f"hung for {_SECONDS} s"
    return "traceback", f"the process {why}: {self._log.read_text()[-1000:]}"

  def _start(self) -> None:
    with open(self._log, "w") as log:
      pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
      self._process = subprocess.Popen(self._begin, text=True, **pipes)
    if self._process.stdout.readline() != "ready\n":
      raise RuntimeError(f"{' '.join(self._begin)} does not begin: {self._log.read_text()[-3000:]}")

  def close(self) -> int | None:
    if self._process is None:
      return None
    self._process.stdin.close()
    status, self._process = self._process.wait(), None
    return status


def try_all(kind: str, module: str, count: int, folder: pathlib.Path) -> Tally:
  """Tries cases 0 to count - 1 of a module, in a process a core."""
  tally, numbers, lock = Tally(kind), queue.SimpleQueue(), threading.Lock()
  for number in range(count):
    numbers.put(number)

  def work(which: int) -> None:
    worker = Worker(module, folder / f"{module}_{which}")
    while True:
      try:
        number = numbers.get_nowait()
      except queue.Empty:
        break
      outcome, note = worker.ask(number)
      with lock:
        tally.add(f"case {number} of {module}", outcome, note)
    worker.close()

  threads = [threading.Thread(target=work, args=(i,)) for i in range(os.cpu_count())]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return tally
