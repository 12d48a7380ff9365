"""What several processes, or a disk that is full, do to each other's files."""

import contextlib
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from commands_of import differing, facts_of, run, says_traceback, start, train
from tally import Tally

_HERE = pathlib.Path(__file__).parent


def fresh_cache(count: int, folder: pathlib.Path, reference: pathlib.Path) -> Tally:
  """Two trainings begin at once on an empty cache; both end as one alone does."""
  tally, facts = Tally("two processes on one fresh cache"), facts_of(reference)
  for number in range(count):
    place = folder / f"fresh_{number}"
    places = [place / "a", place / "b"]
    for path in places:
      path.mkdir(parents=True)
    begun = [start(*train(p / "run"), cache=place / "cache", log=p / "log") for p in places]
    for process, path in zip(begun, places):
      tally.add(f"training in {path}", *_judged(process.wait(timeout=1800), path, facts))
    shutil.rmtree(place)
  return tally


def reader_beside_writer(count: int, folder: pathlib.Path, reference: pathlib.Path) -> Tally:
  """A run is opened again and again while it is trained; every read gives a finished epoch."""
  tally, facts = Tally("reader beside a writer"), facts_of(reference)
  for number in range(count):
    place = folder / f"beside_{number}"
    place.mkdir(parents=True)
    writer = start(*train(place / "run"), cache=reference.parent / "cache", log=place / "log")
    program = [sys.executable, str(_HERE / "reader.py"), str(place / "run")]
    with open(place / "reader.log", "w") as log:
      pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
      reader = subprocess.Popen(program, text=True, **pipes)
    # Its last read is after the training's end, by when there is a network.
    threading.Thread(target=lambda w=writer, r=reader: (w.wait(), r.stdin.close())).start()
    lines = [json.loads(line) for line in reader.stdout]
    reader.wait()
    for line, (outcome, note) in enumerate(lines):
      tally.add(f"read {line} of {place}", outcome, note)
    if not lines or lines[-1][0] != "fine":
      tally.add(f"reader in {place}", "traceback", (place / "reader.log").read_text()[-1500:])
    tally.add(f"writer in {place}", *_judged(writer.wait(), place, facts))
  return tally


def full_disk(count: int, folder: pathlib.Path, reference: pathlib.Path) -> Tally:
  """A training whose disk runs full says so; with more space it goes on, and ends as it should."""
  facts, needed = facts_of(reference), _size(reference) + _size(reference.parent / "cache", "xla")
  can_mount = os.geteuid() == 0 and _mount(folder / "disk_trial", 2**20)
  if can_mount:
    _unmount(folder / "disk_trial")
  how = "a small tmpfs" if can_mount else "RLIMIT_FSIZE, as this is not root"
  tally = Tally(f"full disk ({how})")
  for number in range(count):
    place, share = folder / f"disk_{number}", (number + 0.5) / count
    with _small_disk(place, int(needed * share), can_mount) as (limit, enlarge):
      options = {"cache": place / "cache", "log": folder / f"disk_{number}.log"}
      status = run(*train(place / "run"), **options, before=limit)
      trace = says_traceback(options["log"])
      if trace or status not in (0, 1):
        tally.add(f"{share:.0%} of the space", "traceback", trace or f"status {status}")
        continue
      enlarge()
      again = run(*train(place / "run"), **options)
      outcome, note = _judged(again, place, facts, log=options["log"])
      tally.add(
        f"{share:.0%} of the space", "told" if outcome == "fine" and status else outcome, note
      )
  return tally


def _judged(status: int, place: pathlib.Path, facts: dict, log=None) -> tuple[str, str]:
  log = log or place / "log"
  if trace := says_traceback(log):
    return "traceback", trace
  if status:
    return "lost", f"status {status}: {log.read_text(errors='replace')[-1500:]}"
  changed = differing(facts, facts_of(place / "run"))
  return ("other", ", ".join(changed)) if changed else ("fine", "")


def _size(folder: pathlib.Path, without: str = "") -> int:
  files = [path for path in folder.rglob("*") if path.is_file()]
  return sum(p.stat().st_size for p in files if without not in p.relative_to(folder).parts)


def _mount(place: pathlib.Path, size: int, *, again: bool = False) -> bool:
  place.mkdir(parents=True, exist_ok=True)
  options = f"size={size}" + (",remount" if again else "")
  done = subprocess.run(
    ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, check=False
  )
  return done.returncode == 0


def _unmount(place: pathlib.Path) -> None:
  for _ in range(20):
    if subprocess.run(["umount", str(place)], capture_output=True, check=False).returncode == 0:
      return
    time.sleep(0.5)


@contextlib.contextmanager
def _small_disk(place: pathlib.Path, size: int, can_mount: bool) -> Iterator[tuple]:
  """(what limits a process before it begins, what gives more space)."""
  if not can_mount:
    place.mkdir(parents=True)
    largest = size // 20  # No file may be larger, of the twenty or so that make up most of it.
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest)), lambda: None
    shutil.rmtree(place)
    return
  _mount(place, size)
  try:
    yield None, lambda: _mount(place, 2**31, again=True)
  finally:
    _unmount(place)
