"""What App. E and F say of accuracies, put to the test on images that all networks see."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

from jprotop.experiments.accuracy_numbers import SMALL
from jprotop.experiments.robustness_numbers import more_robust
from jprotop.prototypes import accuracy
from jprotop.report.verdicts import PerImage, Rule, closes, of_metric, of_paired, supposing


def _tested(results: Mapping[str, Any], network: str) -> dict | None:
  return results.get("accuracy", {}).get(network, {}).get("test")


def _unpacked(record: Mapping[str, Any], name: str) -> Bool[np.ndarray, " N"]:
  return accuracy.unpacked(record["hits"][name], record[name]["total"])


def _hits(results: Mapping[str, Any], network: str, name: str, label: str) -> PerImage:
  """Which test images a network gets right, by one of the accuracies."""
  record = _tested(results, network)
  return PerImage(label, None if record is None else _unpacked(record, name))


def _gap(results: Mapping[str, Any], network: str, label: str) -> PerImage:
  """By how much a network is right more often on the altered test set: 1, 0 or -1 an image."""
  record = _tested(results, network)
  if record is None:
    return PerImage(label, None)
  altered, clean = (_unpacked(record, name).astype(float) for name in ("altered", "clean"))
  return PerImage(label, altered - clean, record["altered_minus_clean"])


def claims(results: Mapping[str, Any]) -> list[dict]:
  """What App. E and F say of accuracies."""
  return [*_of_artefacts(results), *_of_adversarial_training(results)]


def _of_artefacts(results: Mapping[str, Any]) -> list[dict]:
  label = "altered minus original test set, {} network"
  altered, standard, remedied = (
    _gap(results, network, label.format(network)) for network in ("altered", "standard", "remedied")
  )
  return [
    *of_metric(
      "Accuracy falls on the original test set",
      "App. E",
      ("accuracy of the altered network, altered minus original", altered.numbers),
      Rule(SMALL),
    ),
    *of_paired(
      "It falls by more than that of the network that never saw artefacts (control)",
      "App. E",
      altered,
      standard,
      Rule(SMALL),
      ours=True,
    ),
    *closes(
      "Altering training images at random closes most of the gap in accuracy",
      remedied,
      altered,
      margin=SMALL,
    ),
  ]


def _of_adversarial_training(results: Mapping[str, Any]) -> list[dict]:
  return supposing(
    more_robust(results),
    of_paired(
      "It comes at a drop in accuracy on the test set",
      "App. F.1",
      _hits(results, "standard", "clean", "standard training"),
      _hits(results, "adversarial", "clean", "adversarial training"),
      Rule(SMALL),
    ),
  )
