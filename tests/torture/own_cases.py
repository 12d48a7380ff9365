"""Damages of jprotop's own files: healed, told in one message, or of no consequence.

The folder of a worker has `base`, which `prepare_base` made: a finished run, a study with one stage
of it, and the cache of both. Every case damages one file of a copy, and everything is read.
"""

import json
import os
import pathlib
import shutil
import zlib

import numpy as np
from commands_of import reproduce, run, train
from image_cases import damaged
from tally import worst
from worker import outcome_of

from configs import tiny
from jprotop import parallel
from jprotop.cli import reproduce as study_command
from jprotop.runs import results
from jprotop.runs import run as runs
from jprotop.runs.history import read_history
from jprotop.training import pretrained

# Of the cache, not what XLA compiled.
_FILES = (
  *("run/config.json", "run/results.json", "run/history.jsonl", "run/pretrained.npz"),
  *("study/standard/stages/accuracy.json", "study/standard/results.json", "study/results.json"),
  *("cache/pixels/*.npy", "cache/toybirds/*/*/*", "run/checkpoints/*/**/*"),
)
_reference: dict = {}


def prepare_base(base: pathlib.Path) -> None:
  """Trains a run and measures a stage of a study of it."""
  options = {"cache": base / "cache", "log": base / "log"}
  given = (*reproduce(base / "study"), f"--standard={base / 'run'}", "--only=table1")
  for arguments in (train(base / "run"), ("accuracy", f"--workdir={base / 'run'}"), given):
    if run(*arguments, **options):
      raise RuntimeError(f"{arguments} failed:\n{options['log'].read_text()[-3000:]}")


def prepare(folder: pathlib.Path) -> None:
  parallel.use_cpu_cores(240)  # As the commands do.
  copy = _copy(folder)
  for name, read in _READERS.items():
    _reference[name] = read(copy)


def _copy(folder: pathlib.Path) -> pathlib.Path:
  """A copy that is always in one place, as results name places."""
  copy = folder / "copy"
  shutil.rmtree(copy, ignore_errors=True)
  shutil.copytree(folder.parent / "base", copy, ignore=shutil.ignore_patterns("xla", "log"))
  os.environ["JPROTOP_CACHE"] = str(copy / "cache")
  return copy


def case(number: int, folder: pathlib.Path) -> tuple[str, str]:
  copy, rng = _copy(folder), np.random.default_rng([number, 4])
  pattern = _FILES[number % len(_FILES)]
  paths = sorted(path for path in copy.glob(pattern) if path.is_file())
  path = paths[rng.integers(len(paths))]
  how = _damage(path, rng)
  found = [outcome_of(_compare, name, copy) for name in _READERS]
  outcome, note = worst(found)
  return outcome, f"{path.relative_to(copy)} {how}: {note}"


def _compare(name: str, copy: pathlib.Path) -> tuple[str, str] | None:
  same = _READERS[name](copy) == _reference[name]
  return None if same else ("other", f"{name} has other values")


def _damage(path: pathlib.Path, rng: np.random.Generator) -> str:
  content = path.read_bytes()
  if path.suffix in (".json", ".jsonl") and rng.random() < 0.4:
    digits = [i for i, byte in enumerate(content) if byte in b"123456789"]
    place = digits[rng.integers(len(digits))] if digits else 0
    path.write_bytes(content[:place] + b"8" + content[place + 1 :])
    return f"has another digit at {place}"
  # Of these nothing tells that they ever were.
  lonely = ("results.json", "history.jsonl", "pretrained.npz")
  if rng.random() < 0.15 and path.name not in lonely:
    path.unlink()
    return "is gone"
  path.write_bytes(damaged(content, rng) if content else b"x")
  return "has other bytes"


def _weights(copy: pathlib.Path) -> tuple:
  opened = runs.open_run(copy / "run")
  where = b"".join(array.tobytes() for _, array in sorted(opened.provenance.as_arrays().items()))
  return opened.digest, zlib.crc32(where), opened.info["position"]


def _images(copy: pathlib.Path) -> list:
  dataset = runs.open_dataset(tiny.get_config().to_dict())
  splits = (dataset.train, dataset.validation, dataset.test)
  pixels = [zlib.crc32(np.ascontiguousarray(split.pixels)) for split in splits]
  crops = [zlib.crc32(split.crop(0).tobytes()) for split in splits]
  return [dataset.identity, pixels, crops, [split.parts.sum().item() for split in splits]]


def _copies(copy: pathlib.Path) -> int:
  config = tiny.get_config().to_dict()
  split, data = runs.open_dataset(config).train, config["train"]["data"]
  return zlib.crc32(np.ascontiguousarray(split.stored_copies(data["copies"], 0)))


def _history(copy: pathlib.Path) -> list:
  opened = runs.open_run(copy / "run")
  return read_history(copy / "run", opened.info["position"])


def _results(copy: pathlib.Path) -> dict:
  return results.read_results(copy / "run")


def _study(copy: pathlib.Path) -> dict:
  """What is collected of it: a stage that was damaged is not among it until it is repeated."""
  study_command.collect_runs([str(copy / "study")], copy / "tables")
  return results.read_results(copy / "study")["accuracy"]


def _stage(copy: pathlib.Path) -> dict:
  """The study goes on; a stage whose file was damaged is measured again."""
  given = {"standard": copy / "run"}
  found = study_command.reproduce(tiny.get_config().to_dict(), copy / "study", given, ["table1"])
  return json.loads(json.dumps(found["accuracy"]))


def _pretrained(copy: pathlib.Path) -> int:
  config = json.loads(json.dumps(tiny.get_config().to_dict()))
  name = pretrained.fingerprint(config, runs.open_dataset(config).identity)
  backbone, history = pretrained.find_pretrained([copy / "run"], name)
  leaves = [np.asarray(v).tobytes() for v in _leaves(backbone)]
  return zlib.crc32(b"".join([*leaves, "".join(history).encode()]))


def _leaves(tree) -> list:
  if isinstance(tree, dict):
    return [leaf for key in sorted(tree) for leaf in _leaves(tree[key])]
  return [tree]


_READERS = {
  "the weights": _weights,
  "the images": _images,
  "the augmented copies": _copies,
  "the history": _history,
  "results.json": _results,
  "the pretrained backbone": _pretrained,
  "the study": _study,
  "the stage": _stage,
}
