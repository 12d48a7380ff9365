"""A campaign of sabotage, with one table at its end: `make torture`, or

  python tests/torture --only=images,values --scale=0.1 --folder=DIR

Trainings and studies are killed, files are damaged, values are senseless, checkpoints hostile,
disks full, and several processes are at one folder. No traceback, nothing executed, nothing lost
and nothing silently other is allowed; what is, is listed below the table and in FOLDER/bad.txt, and
the exit status is then 1. The parts, with how many cases each has at --scale=1, are in PARTS.
"""

import argparse
import pathlib
import shutil
import sys
import tempfile
import time

import own_cases
from commands_of import reproduce, run, train
from kills import kill_all
from sharing import fresh_cache, full_disk, reader_beside_writer
from tally import Tally, table
from workers import try_all

PARTS = {
  "trainings": 40,
  "studies": 5,
  "images": 500,
  "values": 600,
  "checkpoints": 1000,
  "own": 120,
  "cache": 3,
  "reader": 2,
  "disk": 8,
}


def campaign(parts: dict[str, int], folder: pathlib.Path) -> list[Tally]:
  """Tries so many cases of each part."""
  tallies = []
  for name, count in parts.items():
    print(f"{name}: {count} ...", file=sys.stderr, flush=True)
    begun = time.monotonic()
    tally = _part(name, count, folder)
    tally.seconds = time.monotonic() - begun
    print(table([tally]), file=sys.stderr, flush=True)
    tallies.append(tally)
  return tallies


def _part(name: str, count: int, folder: pathlib.Path) -> Tally:
  if name in ("images", "values", "checkpoints"):
    module = {"images": "image_cases", "values": "value_cases", "checkpoints": "torch_cases"}[name]
    kinds = {"images": "damaged images", "values": "config and flag values"}
    return try_all(kinds.get(name, "hostile checkpoints"), module, count, folder)
  if name == "own":
    own_cases.prepare_base(folder / "base")
    return try_all("damages of own files", "own_cases", count, folder)
  if name == "studies":
    reference = _reference(folder, "study", reproduce)
    return kill_all("studies killed", reproduce, count, folder, reference)
  reference = _reference(folder, "run", train)
  if name == "trainings":
    return kill_all("trainings killed", train, count, folder, reference)
  of = {"cache": fresh_cache, "reader": reader_beside_writer, "disk": full_disk}
  return of[name](count, folder, reference)


def _reference(folder: pathlib.Path, name: str, command) -> pathlib.Path:
  """What a command leaves that nobody disturbs, made once; its cache and its time are beside it.

  The time is of a second run, which finds what the first has compiled.
  """
  place = folder / "reference" / name
  if place.exists():
    return place
  for workdir in (place.with_name("first"), place):
    shutil.rmtree(place.with_name("first"), ignore_errors=True)
    begun, log = time.monotonic(), folder / f"reference_{name}.log"
    if run(*command(workdir), cache=place.parent / "cache", log=log):
      raise RuntimeError(f"the undisturbed {name} failed: {log.read_text()[-3000:]}")
  place.with_name(f"{name}.seconds").write_text(f"{time.monotonic() - begun}")
  return place


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--only", help=f"some of {', '.join(PARTS)}; default: all")
  parser.add_argument("--scale", type=float, default=1, help="of the numbers of cases")
  parser.add_argument("--folder", type=pathlib.Path, help="a new one; default: a temporary one")
  given = parser.parse_args()
  names = given.only.split(",") if given.only else list(PARTS)
  if unknown := set(names) - PARTS.keys():
    parser.error(f"--only: {', '.join(unknown)} is not among {', '.join(PARTS)}")
  folder = (given.folder or pathlib.Path(tempfile.mkdtemp(prefix="torture_"))).absolute()
  folder.mkdir(parents=True, exist_ok=True)
  if any(folder.iterdir()):
    parser.error(f"--folder: {folder} is not empty; give a new one")
  tallies = campaign({name: max(1, round(PARTS[name] * given.scale)) for name in names}, folder)
  bad = [note for tally in tallies for note in tally.notes]
  (folder / "bad.txt").write_text("\n\n".join(bad))
  print(table(tallies))
  print("\n\n".join(bad[:20]))
  if not bad and not given.folder:
    shutil.rmtree(folder)
  return 1 if bad else 0


if __name__ == "__main__":
  sys.exit(main())
