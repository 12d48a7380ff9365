"""The paper's statements about artefacts, and the controls that they need, put to the test."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jprotop.prototypes.accuracy import unpacked, unpacked_numbers
from jprotop.report.paper_tables import NETWORK_NAMES
from jprotop.report.verdicts import PerImage, Rule, closes, of_metric, of_paired, text

_OURS = "; the threshold is ours"
# A difference of shares of images, or of top prototypes, that is too small to matter.
_TOLERANCE = 0.05
# A difference of similarities that is too small to matter; they go up to 9.2.
_SMALL = 0.1
# The same of a difference of means over all prototypes, of which most look at other things.
_SMALL_SHIFT = 0.02


def drift(results: Mapping[str, Any], network: str, name: str, selection="paper") -> dict | None:
  """One number of a network and a selection of images; None where it was not measured."""
  record = results.get("alteration", {}).get(network)
  return record and record["selections"][selection][name]


def both(
  results: Mapping[str, Any],
  networks: tuple[str, str],
  name: str,
  label: str,
  *,
  every: bool = False,
) -> tuple[PerImage, PerImage]:
  """A number of each of two networks, image by image, of the altered classes or of every image.

  There are none where they are not of the same images and classes, or not of as many top
  prototypes.
  """
  records = [results.get("alteration", {}).get(network) for network in networks]
  comparable = all(records) and _comparable(*records)
  first, second = (
    PerImage(
      label.format(NETWORK_NAMES[network]),
      _values(record["per_image"], name, every=every) if comparable else None,
    )
    for network, record in zip(networks, records)
  )
  return first, second


def _values(rows: Mapping[str, str], name: str, *, every: bool) -> np.ndarray:
  values = _unpacked(rows, name)
  return values if every else values[_unpacked(rows, "altered_class")]


def _comparable(record: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
  same = ("alteration", "parameter", "top_k")
  return record["per_image"]["altered_class"] == other["per_image"]["altered_class"] and all(
    record[name] == other[name] for name in same
  )


def _unpacked(rows: Mapping[str, str], name: str) -> np.ndarray:
  """Values of all images."""
  count = len(unpacked_numbers(rows["shift"]))
  if name in ("altered_class", "top_k_order_kept", "top_prototype_kept"):
    return unpacked(rows[name], count)
  return unpacked_numbers(rows[name])


def claims(results: Mapping[str, Any]) -> list[dict]:
  """Section 4's and App. D.2's statements, and App. F.2's about similarities."""
  return [*_drops(results), *_shifts(results), *_order(results), *_remedy(results)]


def _drops(results: Mapping[str, Any]) -> list[dict]:
  drop, reverse = (
    drift(results, "altered", name) for name in ("similarity_drop", "similarity_drop_reverse")
  )
  other = f"the reverse drop, clean minus altered: {text(reverse)}; " if reverse else ""
  label = "drop on altered classes, {} network"
  return [
    *of_metric(
      "Similarities drop when the artefacts are removed",
      "Section 4",
      ("similarity, altered minus clean", drop),
      Rule(_SMALL),
      note=f"; {other}picking the top prototype of one version tends to make both drops positive",
    ),
    # Not the other classes: in this network artefacts are evidence on every image.
    *of_paired(
      "They drop more than in the network that never saw artefacts (control)",
      "Section 4",
      *both(results, ("altered", "standard"), "similarity_drop", label),
      Rule(_SMALL),
      ours=True,
    ),
  ]


def _shifts(results: Mapping[str, Any]) -> list[dict]:
  """The same without picking a prototype, which favours a drop: over all prototypes and images."""
  label = (
    "similarity, altered minus clean, to prototypes of altered classes minus that to the others, "
    "{} network"
  )
  altered, standard = both(results, ("altered", "standard"), "shift", label, every=True)
  shift = drift(results, "altered", "shift", "all")
  return [
    *of_metric(
      "Artefacts raise the similarity to prototypes of altered classes (no prototype is picked)",
      "Section 4",
      (altered.label, shift),
      Rule(_SMALL_SHIFT),
      ours=True,
    ),
    *of_paired(
      "They raise it more than in the network that never saw artefacts (control)",
      "Section 4",
      altered,
      standard,
      Rule(_SMALL_SHIFT),
      ours=True,
    ),
  ]


def _order(results: Mapping[str, Any]) -> list[dict]:
  networks = ("standard", "altered")
  k = results.get("alteration", {}).get("altered", {}).get("top_k")
  kept = f"same top {k} prototypes in the same order, {{}} network"
  remain = f"share of the top {k} prototypes that remain, {{}} network"
  return [
    *of_paired(
      "They do not simply scale down: the order of the top prototypes changes more often than in "
      "the network that never saw artefacts",
      "App. D.2",
      *both(results, networks, "top_k_order_kept", kept),
      Rule(_TOLERANCE),
    ),
    *of_metric(
      "The top prototypes do not generally remain the top prototypes",
      "App. D.2",
      (remain.format("altered"), drift(results, "altered", "top_k_overlap")),
      Rule(_TOLERANCE, 0.5, "below"),
      note=_OURS,
    ),
    *of_paired(
      "Fewer of them remain than in the network that never saw artefacts (control)",
      "App. D.2",
      *both(results, networks, "top_k_overlap", remain),
      Rule(_TOLERANCE),
      ours=True,
    ),
  ]


def _remedy(results: Mapping[str, Any]) -> list[dict]:
  # Of the same images: which ones are in `paper` depends on the network.
  drops = both(
    results, ("altered", "remedied"), "similarity_drop", "drop on altered classes, {} network"
  )
  remedied, standard = both(
    results,
    ("remedied", "standard"),
    "top_prototype_kept",
    "same top prototype with and without artefacts, {} network",
  )
  return [
    *closes(
      "Altering training images at random takes away most of the drop in similarity",
      drops[1],
      drops[0],
      margin=_SMALL,
    ),
    *of_paired(
      "It does not resolve the problem completely: artefacts change the top prototype more often "
      "than in the network that never saw artefacts",
      "App. F.2",
      standard,
      remedied,
      Rule(_TOLERANCE),
    ),
  ]
