"""A study's results.json of jprotop 0.1 in the form of 0.2, and whether two studies have one set of
numbers: how it was seen that the new house changed none.

  python tests/former_results.py FORMER/results.json NEW/results.json

prints every number that differs, and ends with 1 if there is any.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any

NETWORKS = {
  "standard": "standard",
  "jpeg": "altered",
  "jpeg_augmented": "remedied",
  "adversarial": "adversarial",
}
# Sections that a study kept for its standard network alone.
_OF_STANDARD = ("head_on_stomach", "vanishing_head", "explain")
_SECTIONS = {"evaluate": "accuracy", "jpeg_drift": "alteration", "push": "training"}
_KEYS = {
  "robust": "pgd_accuracy",
  "published_robust": "published_pgd_accuracy",
  "percentile_of_attacked": "share_below_attacked",
  "percentile_of_4": "share_below_4",
  "compressed_classes": "altered_classes",
  "uncompressed_classes": "other_classes",
  "similarity_compressed": "similarity_altered",
  "quality": "parameter",
}
# What a former study has no number for, and what says how and when it was measured.
_LEFT_OUT = ("config", "environment", "seed", "protocol", "table", "variant")
# New beside the numbers: words, and settings that the former form did not keep.
_ADDED = (
  "form",
  "jprotop",
  "config",
  "environment",
  "alteration",
  "trained_on",
  "trained_as_measured",
  "finished_training",
  "explained",
  "unreadable",
  "random_start",
  "survive_jpeg",
)


def renamed(node: Any) -> Any:
  """A tree with the former keys under their new names."""
  if isinstance(node, Mapping):
    return {_KEYS.get(key, key): renamed(value) for key, value in node.items()}
  return [renamed(value) for value in node] if isinstance(node, list) else node


def as_new(former: Mapping[str, Any]) -> dict[str, Any]:
  """{section: {network: record}} of a former study, its tables and its claims' verdicts."""
  found: dict[str, Any] = {"data": former["data"]}
  for section in ("evaluate", "push", "success_rate", "jpeg_drift", *_OF_STANDARD):
    numbers = former.get(section, {})
    by_network = {"standard": numbers} if section in _OF_STANDARD else numbers
    found[_SECTIONS.get(section, section)] = {
      NETWORKS[network]: _wrapped(section, renamed(record))
      for network, record in by_network.items()
    }
  for table in ("table1", "table2", "table3", "table4"):
    found[table] = [
      {("network" if key == "training" else key): value for key, value in renamed(row).items()}
      for row in former[table]
    ]
  return found


def _wrapped(section: str, record: Any) -> Any:
  if section == "evaluate":
    return {"test": record}
  return {"push": record} if section == "push" else record


def verdicts(results: Mapping[str, Any]) -> set[tuple]:
  """Each claim's number and verdict; their words and their order may differ."""
  return {
    (claim["section"], claim["quantity"], claim["threshold"], str(claim["holds"]))
    for claim in results["claims"]
  }


def numbers_of(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
  """(path, leaf) of everything in a tree, but for what says how and when."""
  items = node.items() if isinstance(node, Mapping) else enumerate(node)
  for key, value in items:
    if key in _LEFT_OUT or (key in _ADDED and path):
      continue
    place = f"{path}/{key}"
    if isinstance(value, Mapping | list):
      yield from numbers_of(value, place)
    else:
      yield place, value


def _same(a: Any, b: Any) -> bool:
  """Equal, numbers but for what another way of adding up leaves in the last bits."""
  if isinstance(a, float) and isinstance(b, float):
    return math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12)
  return a == b


def differences(former: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """A line for each number of a former study that a new one has not, or has otherwise."""
  there = dict(numbers_of(new))
  lines = [
    f"{path}: {value!r} became {there.get(path, 'nothing')!r}"
    for path, value in numbers_of(as_new(former))
    if path not in there or not _same(there[path], value)
  ]
  lines += [f"claim: {claim}" for claim in verdicts(former) ^ verdicts(new)]
  return lines


if __name__ == "__main__":
  with open(sys.argv[1]) as one, open(sys.argv[2]) as other:
    old, fresh = json.load(one), json.load(other)
  changed = differences(old, fresh)
  print("\n".join(changed) or f"all {len(list(numbers_of(as_new(old))))} numbers are the same")
  sys.exit(bool(changed))
