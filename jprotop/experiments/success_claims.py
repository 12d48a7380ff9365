"""App. F.1's statements about the success rate after adversarial training, put to the test."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jprotop import statistics
from jprotop.attacks.cases import RULES
from jprotop.experiments.map_quality import unless_collapsed
from jprotop.experiments.robustness_numbers import more_robust
from jprotop.report.verdicts import PerImage, Rule, of_difference, of_paired, supposing, text

# What is a success, by protocol: Section 3 asks that an image be classified correctly before and
# after, while the reference code, whose numbers are the published ones, does not look at the class.
_GOAL = {"paper": "kept", "authors": "moved"}
_CALLED = {"kept": "class kept", "moved": "whatever the class"}


def claims(results: Mapping[str, Any]) -> list[dict]:
  """App. F.1's statements about the success rate after adversarial training."""
  found = [
    *(row for protocol in RULES for row in _halved(results, protocol)),
    *(row for protocol in RULES for row in _remains(results, protocol)),
  ]
  return supposing(more_robust(results), unless_collapsed(found, results))


def _measured(results: Mapping[str, Any], network: str, protocol: str) -> dict | None:
  return results.get("success_rate", {}).get(network, {}).get(protocol)


def _halved(results: Mapping[str, Any], protocol: str) -> list[dict]:
  networks = ("adversarial", "standard")
  adversarial, standard = (_measured(results, network, protocol) for network in networks)
  if adversarial is None or standard is None:
    return []
  goal, k = _GOAL[protocol], adversarial["top_k"]
  if protocol == "authors":  # It draws images that both networks classify correctly.
    shared = _shared((adversarial, goal), (standard, goal))
    rates, where = [statistics.share(side) for side in shared], ", images attackable on both"
  else:
    rates, where = [_rates(found, goal)["rate_at"][str(k)] for found in (adversarial, standard)], ""
  return of_difference(
    f"Adversarial training reduces the success rate by more than half (protocol {protocol})",
    "App. F.1",
    (f"adversarial training, {_CALLED[goal]}{where}", rates[0]),
    (f"standard training{where}", rates[1]),
    Rule(0.05, direction="below"),
    factor=0.5,
    note=_beside("adversarial training", adversarial, goal)
    + _beside("standard training", standard, goal),
  )


def _remains(results: Mapping[str, Any], protocol: str) -> list[dict]:
  found = _measured(results, "adversarial", protocol)
  if found is None:
    return []
  goal = _GOAL[protocol]
  attack, control = _shared((found, goal), (found, f"control_{goal}"))
  return of_paired(
    f"It does not alleviate the problem entirely (protocol {protocol})",
    "App. F.1",
    PerImage(f"adversarial training, {_CALLED[goal]}, on images that both leave", attack),
    PerImage("random noise on the same network and images", control),
    Rule(0.05),
    note=_beside("the attack", found, goal)
    + _beside("random noise", {**found["control"], "top_k": found["top_k"]}, goal),
  )


def _rates(found: Mapping[str, Any], goal: str) -> Mapping[str, Any]:
  return found["kept"] if goal == "kept" else found


def _shared(*sides: tuple[Mapping[str, Any], str]) -> tuple[np.ndarray, ...]:
  """Whether each side succeeded, on the images that all sides could attack, in one order."""
  by_index = [
    {i: at > 0 for i, at in zip(found["images"]["index"], found["images"][name]) if at is not None}
    for found, name in sides
  ]
  shared = sorted(set.intersection(*(set(side) for side in by_index)))
  return tuple(np.array([side[i] for i in shared], bool) for side in by_index)


def _beside(label: str, found: Mapping[str, Any], goal: str) -> str:
  """The first prototype alone, and both bounds of what images that were left out may hide."""
  rates, last = _rates(found, goal), str(found["top_k"])
  said = f"; {label}: {text(rates['rate_at']['1'])} with the first prototype alone"
  if rates["num_not_attackable"]:
    said += (
      f", {text(rates['rate_at'][last])} without the {rates['num_not_attackable']} images that "
      f"could not be attacked, {text(rates['rate_of_all_at'][last])} with these as failures"
    )
  return said
