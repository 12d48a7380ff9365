"""What artefacts do to explanations, in words: the command's lines, the report, the claims."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from jprotop.experiments.experiment import Passage, Pictures
from jprotop.report import tables
from jprotop.report.paper_tables import NETWORK_NAMES
from jprotop.report.verdicts import Rule, closes, of_difference, of_metric, text

_OURS = "; the threshold is ours"
# How many images may change their top prototype where artefacts are no problem any more.
_TOLERANCE = 0.05
# A difference of similarities that is too small to matter; they go up to 9.2.
_SMALL = 0.1


def tell(record: Mapping[str, Any], out: pathlib.Path) -> Iterator[str]:
  """What the command prints."""
  yield (
    f"{record['alteration'].upper()}, parameter {record['parameter']:g}, {len(record['classes'])} "
    "classes altered:"
  )
  if record["trained_on"] not in ("altered", "remedied"):
    yield "  a control: this network was not trained on altered images"
  elif record["trained_on"] == "altered" and not record["trained_as_measured"]:
    yield "  the network itself was trained with another parameter, or on other classes"
  selections = record["selections"]
  for name, title, among in (
    ("paper", "altered classes, altered version classified correctly", "altered_classes"),
    ("other_classes", "other classes (control)", "all"),
  ):
    found = selections[name]
    yield f"  {title}, {found['num_images']} of {selections[among]['num_images']} images:"
    for key, label in (
      ("similarity_altered", "similarity of the top prototype, altered"),
      ("similarity_clean", "  the same prototype, original"),
      ("similarity_drop", "  drop"),
      ("top_k_overlap", f"share of the top {record['top_k']} that stay there"),
      ("top_prototype_kept", "top prototype the same"),
      ("cell_moved", "top prototype found in another cell"),
    ):
      yield f"    {label:<44} {tables.format_metric(found[key])}"
  if (asked := record["num_figures_asked"]) and len(record["shown"]) < asked:
    yield f"  images to show: {len(record['shown'])} ({asked} asked for)"
  yield f"  figures in {out}/figures, arrays in {out}/alteration.npz"


def drift(results: Mapping[str, Any], network: str, name: str, selection="paper") -> dict | None:
  """One number of a network and a selection of images; None where it was not measured."""
  record = results.get("alteration", {}).get(network)
  return record and record["selections"][selection][name]


def claims(results: Mapping[str, Any]) -> list[dict]:
  """Section 4's and App. D.2's statements, and App. F.2's about similarities."""
  return [*_drops(results), *_order(results), *_remedy(results)]


def _drops(results: Mapping[str, Any]) -> list[dict]:
  drop, reverse = (
    drift(results, "altered", name) for name in ("similarity_drop", "similarity_drop_reverse")
  )
  trained, control = (
    drift(results, network, "similarity_drop", "altered_classes")
    for network in ("altered", "standard")
  )
  other = f"the reverse drop, clean minus altered: {text(reverse)}; " if reverse else ""
  return [
    *of_metric(
      "Similarities drop when the artefacts are removed",
      "Section 4",
      ("similarity, altered minus clean", drop),
      Rule(_SMALL),
      note=f"; {other}picking the top prototype of one version tends to make both drops positive",
    ),
    # Not the other classes: in this network artefacts are evidence on every image.
    *of_difference(
      "They drop more than in the network that never saw artefacts (control)",
      "Section 4",
      ("drop on altered classes", trained),
      ("the standard network's on the same images", control),
      Rule(_SMALL),
      ours=True,
    ),
  ]


def _order(results: Mapping[str, Any]) -> list[dict]:
  return [
    *of_metric(
      "They do not simply scale down: the order of the top prototypes changes",
      "App. D.2",
      ("same top prototypes in the same order", drift(results, "altered", "top_k_order_kept")),
      Rule(0.05, 0.5, "below"),
      note=_OURS,
    ),
    *of_metric(
      "The top prototypes do not generally remain the top prototypes",
      "App. D.2",
      ("share of them that remain", drift(results, "altered", "top_k_overlap")),
      Rule(0.05, 0.5, "below"),
      note=_OURS,
    ),
  ]


def _remedy(results: Mapping[str, Any]) -> list[dict]:
  # Of the same images: which ones are in `paper` depends on the network.
  before, after = (
    drift(results, network, "similarity_drop", "altered_classes")
    for network in ("altered", "remedied")
  )
  kept = drift(results, "remedied", "top_prototype_kept", "altered_classes")
  drop = f"; similarity, altered minus clean: {text(after)}" if after else ""
  return [
    *closes(
      "Altering training images at random takes away most of the drop in similarity",
      ("drop with augmentation", after),
      ("without", before),
      margin=_SMALL,
    ),
    *of_metric(
      "It does not resolve the problem completely",
      "App. F.2",
      ("with augmentation, same top prototype with and without artefacts", kept),
      # A drop above 0 would show little: it is picked to be high.
      Rule(0.02, 1 - _TOLERANCE, "below"),
      note=f"{_OURS}{drop}",
    ),
  ]


_SELECTIONS = {
  "paper": "the paper's: altered classes, correct when altered",
  "altered_classes": "altered classes",
  "other_classes": "control: the other classes",
  "all": "all",
}


def _rows(found: Mapping[str, Any]) -> list[dict]:
  return [
    {"network": name, "selection": title, **found[network]["selections"][selection]}
    for network, name in NETWORK_NAMES.items()
    if network in found
    for selection, title in _SELECTIONS.items()
  ]


PASSAGES = (
  Passage(
    heading="Artefacts (Section 4)",
    caption="An image without and with the artefacts, then the layout of the paper's Figure 2: "
    "where the prototype that is most activated on the altered image is found there, and on the "
    "original image. What decides is the strongest cell of each map, marked by a white cross: its "
    "similarity is the prototype's score. To a person the two images look alike; compare the "
    "similarities.",
    pictures=(
      Pictures(network="altered", pattern="alteration_artefacts.png"),
      Pictures(network="altered", pattern="alteration_example_*.png", most=3),
    ),
  ),
  Passage(
    heading="What the artefacts do to the explanation",
    caption="The prototype that is most activated on the altered image: by how much its "
    "similarity drops on the original image, whether the top prototypes stay the same, and whether "
    "it is found elsewhere, that is, its strongest cell is another one. The standard network, "
    "which never saw artefacts in training, and the classes that were not altered are controls.",
    rows=_rows,
    columns={
      "network": "Network",
      "selection": "Images",
      "similarity_drop": "Drop in similarity",
      "similarity_drop_reverse": "Drop, from original to altered",
      "top_k_overlap": "Top 5 shared",
      "rank_correlation": "Rank correlation",
      "cell_moved": "Found in another cell",
      "cell_shift": "Shift in cells",
    },
    pictures=(
      Pictures(network="altered", pattern="alteration_drop.png"),
      Pictures(network="remedied", pattern="alteration_drop.png"),
    ),
  ),
  Passage(
    heading="The most similar prototypes, with and without artefacts (App. D.2)",
    caption="Left: the highest similarities on the altered image and, over them, those of the same "
    "prototypes on the original image; right: the other way round. If the artefacts only scaled "
    "similarities, both would fall in the same order.",
    pictures=(Pictures(network="altered", pattern="alteration_top_similarities_*.png", most=2),),
  ),
  Passage(
    heading="The same on the network that saw random artefacts (App. F.2)",
    caption="The same images as above on the remedied network: the two sets of bars should lie "
    "closer together than above.",
    pictures=(Pictures(network="remedied", pattern="alteration_top_similarities_*.png", most=2),),
  ),
)
