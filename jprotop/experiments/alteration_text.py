"""What artefacts do to explanations, in words: the command's lines, and the report."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from jprotop.experiments.experiment import Passage, Pictures
from jprotop.report import tables
from jprotop.report.paper_tables import NETWORK_NAMES, few


def tell(record: Mapping[str, Any], out: pathlib.Path) -> Iterator[str]:
  """What the command prints."""
  yield (
    f"{record['alteration'].upper()}, parameter {record['parameter']:g}, {len(record['classes'])} "
    f"classes altered: {few(record['classes'])}"
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
      ("shift", "prototypes of altered classes, raised by"),
      ("right_group_clean", "right kind of class predicted, original"),
      ("right_group_altered", "  altered"),
      ("top_k_overlap", f"share of the top {record['top_k']} that stay there"),
      ("top_prototype_kept", "top prototype the same"),
      ("cell_moved", "top prototype found in another cell"),
    ):
      yield f"    {label:<44} {tables.format_metric(found[key])}"
  if (asked := record["num_figures_asked"]) and len(record["shown"]) < asked:
    yield f"  images to show: {len(record['shown'])} ({asked} asked for)"
  yield f"  figures in {out}/figures, arrays in {out}/alteration.npz"


_SELECTIONS = {
  "paper": "the paper's: altered classes, correct when altered",
  "altered_classes": "altered classes",
  "other_classes": "control: the other classes",
  "all": "all",
}


def _rows(found: Mapping[str, Any]) -> list[dict]:
  return [
    {
      "network": name,
      "selection": title,
      "classes": few(found[network]["classes"]),
      "top_k": found[network]["top_k"],
      **found[network]["selections"][selection],
    }
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
    "similarity drops on the original image, whether the top prototypes stay the same, and "
    "whether it is found elsewhere, that is, its strongest cell is another one. The top k are 5 "
    "of the paper's 2000 prototypes, and as large a share of others, but at least 2. The standard "
    "network, which never saw artefacts in training, and the classes that were not altered are "
    "controls.",
    rows=_rows,
    columns={
      "network": "Network",
      "selection": "Images",
      "similarity_drop": "Drop in similarity",
      "similarity_drop_reverse": "Drop, from original to altered",
      "top_k": "k",
      "top_k_overlap": "Top k shared",
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
    heading="The same without picking a prototype",
    caption="The prototype that is most activated on one version of an image was picked for its "
    "height there, so that any change tends to lower it. Here none is picked. Raised: by how much "
    "the artefacts raise the similarity to the prototypes of altered classes, on average, more "
    "than that to the others; a network for which artefacts mean nothing stays near 0, and the "
    "standard network is the control. Right kind: the predicted class is an altered one if the "
    "image's class is, and else is not; a network that takes artefacts for the class is wrong on "
    "original images of altered classes, and on altered images of the others.",
    rows=_rows,
    columns={
      "network": "Network",
      "selection": "Images",
      "shift": "Raised",
      "right_group_clean": "Right kind of class, original images",
      "right_group_altered": "Right kind of class, altered images",
      "classes": "Altered classes",
    },
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
