"""What a study's report shows below its claims and tables: numbers, pictures, and what to see."""

from collections.abc import Callable, Mapping
from typing import Any

Results = Mapping[str, Any]

NETWORKS = {
  "standard": "standard",
  "jpeg": "JPEG-altered",
  "jpeg_augmented": "JPEG-augmented",
  "adversarial": "adversarially trained",
}


def _success_rows(results: Results) -> list[dict]:
  rows = []
  for network, protocols in results.get("success_rate", {}).items():
    for protocol in ("paper", "authors"):
      found = protocols.get(protocol)
      if not found:
        continue
      last = str(found["top_k"])
      rows.append(
        {
          "network": NETWORKS[network],
          "protocol": protocol,
          "first": found["rate_at"]["1"],
          "last": found["rate_at"][last],
          "control": found["control"]["rate_at"][last],
          "kept": found["prediction_kept"],
          "apart": found["num_not_attackable"],
        }
      )
  return rows


def _ablation_rows(results: Results) -> list[dict]:
  return [
    {"network": NETWORKS[network], **row}
    for network, protocols in results.get("success_rate", {}).items()
    for row in protocols.get("ablation") or []
  ]


_SELECTIONS = {
  "paper": "the paper's: compressed classes, correct when compressed",
  "compressed_classes": "compressed classes",
  "uncompressed_classes": "control: the other classes",
  "all": "all",
}


def _drift_rows(results: Results) -> list[dict]:
  return [
    {"network": text_of, "selection": text, **results["jpeg_drift"][network]["selections"][name]}
    for network, text_of in NETWORKS.items()
    if network in results.get("jpeg_drift", {})
    for name, text in _SELECTIONS.items()
  ]


def _vanishing_rows(results: Results) -> list[dict]:
  found = results.get("vanishing_head", {}).get("metrics", {})
  return [{"what": name.replace("_", " "), "value": value} for name, value in found.items()]


def _accuracy_rows(results: Results) -> list[dict]:
  return [
    {
      "network": NETWORKS[network],
      **numbers,
      "compressed_altered": numbers["compressed_classes"]["altered"],
      "compressed_clean": numbers["compressed_classes"]["clean"],
      "uncompressed_clean": numbers["uncompressed_classes"]["clean"],
    }
    for network, numbers in results.get("evaluate", {}).items()
  ]


def _push_rows(results: Results) -> list[dict]:
  return [{"network": NETWORKS[network], **n} for network, n in results.get("push", {}).items()]


Rows = Callable[[Results], list[dict]] | None
# (heading, caption, rows, columns, [(network, section of the pictures, file pattern, how many at
# most)]), in reading order.
CONTENT: tuple[tuple[str, str, Rows, Mapping[str, str], tuple], ...] = (
  (
    "Head on Stomach (Section 3)",
    "The layout of the paper's Figure 1. Left: the training image that the prototype comes from, "
    "and the prototype itself. Top row: the clean image and where the network finds the prototype "
    "(yellow). Bottom row: the same image with noise inside the green outline only. Compare the "
    "yellow boxes, and the similarities printed above them. Each title says whether it moved. The "
    "last picture shows every attacked image as a line: the explanation fails where a line on the "
    "right ends above where the same image's line on the left ends.",
    None,
    {},
    (
      ("standard", "head_on_stomach", "head_on_stomach_*.png", 3),
      ("standard", "head_on_stomach", "similarity_shift.png", 1),
    ),
  ),
  (
    "How often it succeeds (App. F.1)",
    "Success: among an image's most activated prototypes, one is found more strongly outside the "
    "place where it was than inside. First: with the top prototype alone; all: with any of them. "
    "Control: random noise of the same size in the same places. Compare each network "
    "with its control, and networks with each other.",
    _success_rows,
    {
      "network": "Network",
      "protocol": "Protocol",
      "first": "Success, first prototype",
      "last": "Success, all",
      "control": "Random noise",
      "kept": "Predicted class kept, of the successes",
      "apart": "Images that cannot be attacked",
    },
    (
      ("standard", "success_rate", "success_at_k.png", 1),
      ("adversarial", "success_rate", "success_at_k.png", 1),
    ),
  ),
  (
    "What the protocol changes",
    "Protocol paper is the method as the paper states it, authors what its code computes. Each "
    "row switches one of the differences on; compare its rate with the first row's.",
    _ablation_rows,
    {
      "network": "Network",
      "setting": "Setting",
      "rate_first": "Success, first prototype",
      "rate": "Success, all",
      "prediction_kept": "Predicted class kept, of the successes",
    },
    (),
  ),
  (
    "From which part to which",
    "Where a prototype sat on the clean image (rows) and where it is found after a successful "
    "attack (columns): the annotated part inside the box of high activation that is nearest to its "
    "peak; background, if the box holds none. Cells count images, colours are shares of a row. Off "
    "the diagonal the explanation names another part of the bird.",
    None,
    {},
    (
      ("standard", "success_rate", "parts_paper.png", 1),
      ("adversarial", "success_rate", "parts_paper.png", 1),
    ),
  ),
  (
    "JPEG artefacts (Section 4)",
    "An image without and with the artefacts, then the layout of the paper's Figure 2: where the "
    "prototype that is most activated on the compressed image is found there, and on the original "
    "image. To a person the two images look alike; compare the similarities.",
    None,
    {},
    (
      ("jpeg", "jpeg_drift", "jpeg_artefacts.png", 1),
      ("jpeg", "jpeg_drift", "jpeg_example_*.png", 3),
    ),
  ),
  (
    "What the artefacts do to the explanation",
    "The prototype that is most activated on the compressed image: by how much its similarity "
    "drops on the original image, whether the top prototypes stay the same, and whether it is "
    "found elsewhere. The standard network, which never saw artefacts in training, and the "
    "classes that were not compressed are controls.",
    _drift_rows,
    {
      "network": "Network",
      "selection": "Images",
      "similarity_drop": "Drop in similarity",
      "similarity_drop_reverse": "Drop, from original to compressed",
      "top_k_overlap": "Top 5 shared",
      "rank_correlation": "Rank correlation",
      "cell_moved": "Found in another cell",
      "cell_shift": "Shift in cells",
    },
    (
      ("jpeg", "jpeg_drift", "jpeg_drop.png", 1),
      ("jpeg_augmented", "jpeg_drift", "jpeg_drop.png", 1),
    ),
  ),
  (
    "The most similar prototypes, with and without artefacts (App. D.2)",
    "Left: the highest similarities on the compressed image and, over them, those of the same "
    "prototypes on the original image; right: the other way round. If the artefacts only scaled "
    "similarities, both would fall in the same order.",
    None,
    {},
    (("jpeg", "jpeg_drift", "jpeg_top_similarities_*.png", 2),),
  ),
  (
    "The same on the network that saw random compression (App. F.2)",
    "The same images as above on the JPEG-augmented network: the two sets of bars should lie "
    "closer together than above.",
    None,
    {},
    (("jpeg_augmented", "jpeg_drift", "jpeg_top_similarities_*.png", 2),),
  ),
  (
    "Making the head disappear",
    "The reference code's third attack, not in the paper: noise inside the prototype's own box "
    "that lowers its similarity on the image, with random noise as control.",
    _vanishing_rows,
    {"what": "What", "value": "Value"},
    (("standard", "vanishing_head", "vanishing_head_*.png", 2),),
  ),
  (
    "Explanations of single images",
    "An image, the prototypes that it activates most, where they come from and where they are "
    "found, and how much each adds to the class score.",
    None,
    {},
    (("standard", "explain", "explain_*.png", 2),),
  ),
  (
    "Accuracies of all four networks",
    "On the test images. Altered: those of the chosen classes compressed; all classes compressed: "
    "the reference's second reading. Robust: after ten steps of PGD against the class.",
    _accuracy_rows,
    {
      "network": "Network",
      "clean": "Clean",
      "altered": "Altered",
      "altered_every_class": "All classes compressed",
      "robust": "Robust",
      "compressed_altered": "Chosen classes, compressed",
      "compressed_clean": "Chosen classes, clean",
      "uncompressed_clean": "Other classes, clean",
    },
    (),
  ),
  (
    "How the networks were trained",
    "Accuracy and losses over the epochs of the phases: standard, JPEG-altered, JPEG-augmented, "
    "adversarial. The push replaces every prototype by a patch of a training image; a drop there "
    "is what that costs before the last layer is tuned.",
    _push_rows,
    {
      "network": "Network",
      "num_prototypes": "Prototypes",
      "distinct": "Different patches among them",
      "accuracy_before": "Test accuracy just before the push",
      "accuracy_after": "just after",
    },
    tuple((network, "push", "training_curves.png", 1) for network in NETWORKS),
  ),
  (
    "Which classes the standard network confuses",
    "Test images: rows are the true classes, columns the predicted ones.",
    None,
    {},
    (("standard", "evaluate", "confusion_test.png", 1),),
  ),
  (
    "The standard network's prototypes",
    "Each prototype is a patch of a training image of its class: the patch above, the image below "
    "with the box of high activation. Further pages, and those of the other networks, are in their "
    "figures/ folders.",
    None,
    {},
    (("standard", "push", "gallery_*.png", 3),),
  ),
)
