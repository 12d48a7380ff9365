"""Accuracy under the worst of several attacks: its numbers, and what other claims rest on them."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Bool, Int

from jprotop import statistics
from jprotop.attacks.against_class import ATTACKS, Effort
from jprotop.prototypes.accuracy import packed, unpacked
from jprotop.report.verdicts import Premise
from jprotop.runs.records import Record, Share

# What two networks must have in common to be compared.
_ALIKE = ("images", "num_test_images", "eps", "num_steps", "restarts", "targets", "queries")
# How much more often a network must be right under attack than another to be the more robust one.
_MORE = 0.05
_PREMISE = "right under the worst of the attacks, adversarial minus standard training"


class Hits(msgspec.Struct, forbid_unknown_fields=True):
  """Which images are right, in their order, as `prototypes.accuracy.packed` writes them."""

  clean: str
  pgd: str
  worst: str


class Misled(msgspec.Struct, forbid_unknown_fields=True):
  """How many images each attack misled, of those that the ones before it had left."""

  apgd_ce: int
  apgd_targeted: int
  square: int


class Robustness(Record):
  """Accuracies on images of the test set, all on the same ones.

  images are their places there, drawn from the seed. The attacks are tried one after another on
  images that are still right; pgd is after the paper's PGD alone, and worst after all.
  """

  images: list[int]
  num_test_images: int
  eps: float
  num_steps: int
  restarts: int
  targets: int
  queries: int
  seed: int
  clean: Share
  pgd: Share
  pgd_num_steps: int
  after_apgd_ce: Share
  after_apgd_targeted: Share
  after_square: Share
  worst: Share
  misled: Misled
  pgd_missed: int
  hits: Hits


def summarise(
  clean: Bool[np.ndarray, " N"],
  pgd: Bool[np.ndarray, " N"],
  misled: Mapping[str, Bool[np.ndarray, " N"]],
) -> dict:
  """The numbers of N images.

  Args:
    clean, pgd: which are right, as they are and after PGD.
    misled: by each of `ATTACKS`, which images were right before it and are not after it.
  """
  after, left = {}, clean
  for name in ATTACKS:
    left = left & ~misled[name]
    after[f"after_{name}"] = statistics.share(left)
  worst = left & pgd
  return {
    "clean": statistics.share(clean),
    "pgd": statistics.share(pgd),
    **after,
    "worst": statistics.share(worst),
    "misled": {name: int(misled[name].sum()) for name in ATTACKS},
    "pgd_missed": int((pgd & ~worst).sum()),
    "hits": {
      name: packed(hits) for name, hits in (("clean", clean), ("pgd", pgd), ("worst", worst))
    },
  }


def drawn(count: int, available: int, seed: int) -> Int[np.ndarray, " drawn"]:
  """Places of `count` images, or of all where there are not so many: the same for any network."""
  order = np.random.default_rng(seed).permutation(available)
  return np.sort(order[:count])


def effort_of(settings: Mapping[str, Any]) -> Effort:
  """What `config.measure.robustness` lets the attacks do."""
  names = ("eps", "num_steps", "restarts", "targets", "queries")
  return Effort(**{name: settings[name] for name in names})


def difference(results: Mapping[str, Any], name: str) -> dict | None:
  """How much more often the adversarially trained network is right than the standard one.

  A paired difference, image by image; None where they were not measured, or not alike.

  Args:
    name: of `Hits`.
  """
  found = results.get("robustness", {})
  if not {"standard", "adversarial"} <= found.keys():
    return None
  a, b = found["adversarial"], found["standard"]
  if any(a[key] != b[key] for key in _ALIKE):
    return None
  count = len(a["images"])
  return statistics.paired_difference(*(unpacked(record["hits"][name], count) for record in (a, b)))


def more_robust(results: Mapping[str, Any]) -> Premise:
  """What claims of adversarial training take for granted: that it made the network more robust.

  Robust is what stands the worst of the attacks at the eps that was trained against.
  """
  found, records = difference(results, "worst"), results.get("robustness", {})
  eps = records.get("adversarial", {}).get("eps")
  what = _PREMISE + (f", eps {255 * eps:.3g}/255" if eps is not None else "")
  missing = "the networks were not attacked alike"
  if not {"standard", "adversarial"} <= records.keys():
    missing = "robustness was not measured"
  return Premise(what, found, _MORE, "this network is not robust" if found else missing)
