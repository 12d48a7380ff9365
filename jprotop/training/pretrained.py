"""The backbone as the pretraining leaves it: made once, a start for several networks of a study.

Pretraining stands in for ImageNet weights, so what App. F does to the training (random compression,
FGSM) begins after it. The images of the JPEG experiment are another matter: they are what the
network is given to learn from, and a backbone that had learnt the same classes from clean ones
would be immune to the artefacts. So the altered network has a pretraining of its own.
"""

import pathlib
from collections.abc import Iterable

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jprotop.errors import InputError
from jprotop.files import atomic_path
from jprotop.runs.config import trained_part
from jprotop.runs.digests import digest_of_arrays
from jprotop.runs.sealed import digest_of

_FILE = "pretrained.npz"


def fingerprint(config: dict, data_identity: str) -> str:
  """A name for all that a pretraining depends on."""
  train = trained_part(config)
  same = ("data", "pretrain", "batch_size", "weight_decay", "seed", "protocol")
  what = {
    "images": data_identity,
    "model": {key: train["model"][key] for key in ("backbone", "dtype")},
    **{key: train[key] for key in same},
    "init": {"backbone": train["init"]["backbone"]},
    "altered": train["alteration"] if train["network"] == "altered" else None,
  }
  return digest_of(what)


def save(workdir: pathlib.Path, name: str, variables: dict, history: list[str]) -> None:
  """Keeps a backbone's {params, batch_stats} and lines of history.jsonl in a run's folder."""
  arrays = {key: np.asarray(v) for key, v in flatten_dict(variables, sep="/").items()}
  arrays |= {"name": np.array(name), "history": np.array(history)}
  with atomic_path(workdir / _FILE) as temporary:
    np.savez(temporary, allow_pickle=False, digest=np.array(digest_of_arrays(arrays)), **arrays)


def find_pretrained(runs: Iterable[pathlib.Path], name: str) -> tuple[dict, list[str]] | None:
  """The backbone of that name in one of several runs' folders, and its history; None if in none."""
  for run in runs:
    path = run / _FILE
    if not path.exists():
      continue
    arrays = _read(path)
    if str(arrays.pop("name")) == name:
      history = arrays.pop("history").tolist()
      return unflatten_dict(arrays, sep="/"), history
  return None


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """All that `save` wrote, but for the digest, which it is held against."""
  remedy = "delete it, and the backbone is pretrained again"
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = dict(file)
  except Exception as error:  # NumPy and zipfile raise half a dozen kinds for a damaged file.
    raise InputError(f"{path} cannot be read ({error}); {remedy}") from error
  digest = arrays.pop("digest", None)
  if digest is None or str(digest) != digest_of_arrays(arrays):
    raise InputError(f"{path} is damaged: it does not hold what was written; {remedy}")
  return arrays
