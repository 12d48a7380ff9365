"""Trainings and studies that are killed, at random and at aimed moments, and go on to their end.

What they leave is then compared, bit for bit, with what one leaves that was never killed.
"""

import os
import pathlib
import queue
import shutil
import threading
import time
from collections.abc import Callable

import numpy as np
from commands_of import differing, facts_of, says_traceback, start
from tally import Tally

# A kill is aimed at the moment when one of these appears or changes.
_MOMENTS = (
  *("config.json", "history.jsonl", "results.json", "pretrained.npz", "report.html"),
  *("checkpoints/*", "checkpoints/*/*", "checkpoints/*tmp*", "stages/*.json", "tables/*"),
  *(".results*", ".config*", ".history*", ".pretrained*", "figures/*", "stages/.*"),
)
_MOST_KILLS = 3


def kill_all(
  kind: str,
  command: Callable[[pathlib.Path], tuple],
  count: int,
  folder: pathlib.Path,
  reference: pathlib.Path,
) -> Tally:
  """Kills `count` runs of a command; `reference` is what an unkilled one left, its cache beside it.

  The time that it took is in `seconds` beside it.
  """
  tally, numbers, lock = Tally(kind), queue.SimpleQueue(), threading.Lock()
  facts = facts_of(reference)
  for number in range(count):
    numbers.put(number)

  def work() -> None:
    while True:
      try:
        number = numbers.get_nowait()
      except queue.Empty:
        return
      place = folder / f"{kind.split()[0]}_{number}"
      outcome, note = _kill_one(command, number, place, reference)
      with lock:  # Opening networks in two threads would gain nothing.
        if outcome == "fine":
          changed = differing(facts, facts_of(place / "run"))
          outcome, note = ("other", ", ".join(changed)) if changed else ("fine", "")
        tally.add(f"number {number}, see {place}", outcome, note)
      if outcome == "fine":
        shutil.rmtree(place)

  threads = [threading.Thread(target=work) for _ in range(os.cpu_count())]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return tally


def _kill_one(
  command: Callable, number: int, place: pathlib.Path, reference: pathlib.Path
) -> tuple[str, str]:
  """Kills a run up to three times, then lets it end."""
  place.mkdir(parents=True)
  rng, log = np.random.default_rng([number, 5]), place / "log"
  whole = float((reference.parent / f"{reference.name}.seconds").read_text())
  kills = int(rng.integers(1, _MOST_KILLS + 1))
  for kill in range(kills + 1):
    begun = start(*command(place / "run"), cache=reference.parent / "cache", log=log)
    if kill < kills:
      if number % 2:
        _until_moment(begun, place / "run", rng, 2 * whole)
      else:
        _sleep(begun, rng.uniform(0, whole))
      begun.kill()
    status = begun.wait(timeout=3600)
    if status == 0:  # Its end may come before the kill.
      break
    if status > 0:
      return "lost", f"status {status}: {log.read_text(errors='replace')[-1500:]}"
  trace = says_traceback(log)
  return ("traceback", trace) if trace else ("fine", "")


def _sleep(begun, seconds: float) -> None:
  end = time.monotonic() + seconds
  while begun.poll() is None and time.monotonic() < end:
    time.sleep(0.02)


def _until_moment(begun, workdir: pathlib.Path, rng, seconds: float) -> None:
  """Waits until files of one of the moments change, once or a few times."""
  moment = _MOMENTS[rng.integers(len(_MOMENTS))]
  times, end = int(rng.integers(1, 6)), time.monotonic() + seconds
  before = _state(workdir, moment)
  while begun.poll() is None and time.monotonic() < end:
    now = _state(workdir, moment)
    if now != before:
      before, times = now, times - 1
      if not times:
        time.sleep(float(rng.choice((0, 0, 0.001, 0.01))))
        return
    time.sleep(0.0005)


def _state(workdir: pathlib.Path, moment: str) -> set:
  """Which files match, at the top or in a network's folder, and when they were changed."""
  found = set()
  for pattern in (moment, f"*/{moment}"):
    for path in workdir.glob(pattern):
      try:
        found.add((path, path.stat().st_mtime_ns))
      except OSError:  # It is gone again.
        found.add((path, 0))
  return found
