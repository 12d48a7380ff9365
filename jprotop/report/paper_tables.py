"""The paper's Tables 1-4 (App. E, F) from results.json, the published numbers beside them.

A row has backbone, data and num_classes, then measured shares {"value", "count", "total",
"interval"} and the published numbers in percent. These are there only where the data set is the
paper's: CUB-200-2011 with all its 200 classes. What was not measured, or published, is None.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jprotop.data.alterations import ALTERATIONS
from jprotop.data.parts import HEAD_TO_STOMACH

# Of the altered classes, in a row of a table.
_NAMED = 10

# In the order of the paper, as its tables name them.
BACKBONES = {
  "resnet18": "ResNet-18",
  "resnet34": "ResNet-34",
  "vgg19": "VGG-19",
  "vgg19_bn": "VGG-19 with batch norm",
}
DATA_SETS = {"cub": "CUB-200-2011", "toybirds": "ToyBirds", "folder": "own images"}
# How the networks of a study are called in text.
NETWORK_NAMES = {
  "standard": "standard",
  "altered": "altered",
  "remedied": "remedied",
  "adversarial": "adversarially trained",
}
_TABLE3_NETWORKS = ("standard", "adversarial")

# App. E: Table 1, with the accuracies of Chen et al. (2019), and the text for batch norm.
_TABLE1 = {
  "resnet18": {"published": 75.75, "chen": "-"},
  "resnet34": {"published": 79.58, "chen": "79.2 ± 0.1"},
  "vgg19": {"published": 76.39, "chen": "78.0 ± 0.2"},
  "vgg19_bn": {"published": 79.24},
}
# App. E: altered and original test set.
_TABLE2 = {
  "resnet18": {"published_altered": 80.19, "published_original": 44.75},
  "resnet34": {"published_altered": 82.14, "published_original": 46.12},
  "vgg19": {"published_altered": 81.08, "published_original": 49.60},
}
# App. F.2: the same after training with JPEG compression as an augmentation.
_TABLE4 = {
  "resnet18": {"published_altered": 74.70, "published_original": 76.32},
  "resnet34": {"published_altered": 76.58, "published_original": 77.70},
  "vgg19": {"published_altered": 74.59, "published_original": 76.30},
}
# App. F.1: clean accuracy, adversarial accuracy, success rate.
_TABLE3_NAMES = ("published_clean", "published_pgd_accuracy", "published_success_rate")
_TABLE3 = {
  "standard": {"resnet18": (75.8, 0.0, 99.5), "resnet34": (79.6, 0.0, 93.0)},
  "adversarial": {"resnet18": (56.3, 15.8, 34.0), "resnet34": (58.8, 24.2, 27.0)},
}

_WHAT = {"backbone": "backbone", "data": "data set", "num_classes": "classes"}
_JPEG_COLUMNS = {
  **_WHAT,
  "alteration": "alteration",
  "classes": "altered classes",
  "altered": "altered test set (as in training)",
  "published_altered": "altered, published (%)",
  "original": "original test set",
  "published_original": "original, published (%)",
}
# (name of the section, title, {key of a row: heading}).
TABLES = (
  (
    "table1",
    "The paper's Table 1: test accuracy of the networks of the Head on Stomach experiment (App. E)",
    {
      **_WHAT,
      "chen": "Chen et al. (2019) (%)",
      "clean": "test accuracy",
      "published": "published (%)",
    },
  ),
  (
    "table2",
    "The paper's Table 2: test accuracy of the networks of the artefact experiment (App. E)",
    {**_JPEG_COLUMNS, "altered_every_class": "every class altered"},
  ),
  (
    "table3",
    "The paper's Table 3: standard and adversarial training (App. F.1)",
    {
      **_WHAT,
      "network": "training",
      "clean": "clean accuracy",
      "published_clean": "clean, published (%)",
      "pgd_accuracy": "adversarial accuracy",
      "published_pgd_accuracy": "adversarial, published (%)",
      "top_k": "k",
      "success_rate_kept": "success rate with the class kept, protocol paper",
      "success_rate": "success rate, protocol paper",
      "success_rate_authors": "success rate, protocol authors",
      # Measured with noise on the whole image: it belongs beside that protocol only.
      "published_success_rate": "success rate, protocol authors, published (%)",
    },
  ),
  (
    "table4",
    "The paper's Table 4: test accuracy after training on randomly altered images (App. F.2)",
    # The caption says Table 2's scheme, the reference code does the other; both are here.
    {**_JPEG_COLUMNS, "altered_every_class": "every class altered (as in the reference code)"},
  ),
)


# Not in the paper, though it speaks of it: in tables/, and in results.json beside the paper's.
TARGETS = (
  "targets",
  "Head on Stomach: on how many images the prototype arrived where it was sent (Section 3)",
  {
    **_WHAT,
    "sat_on": "prototype sat on",
    "target": "sent to",
    "moved_to_target": "arrived",
    "control_moved": "by random noise",
  },
)

# What to see in each.
TABLE_CAPTIONS = {
  "table1": "The standard network on the test images as they are.",
  "table2": "A network for which the images of some classes are altered, in training as in the "
  "altered test set. If it learnt artefacts, accuracy falls on the original test set.",
  "table3": "What adversarial training changes: clean accuracy, accuracy under PGD against the "
  "class, and how often Head on Stomach succeeds with one of the top prototypes, by protocol.",
  "table4": "A network that saw every image altered by a toss of a coin. Compare the two test sets "
  "with those of Table 2.",
}


def all_tables(results: Mapping[str, Any]) -> dict[str, list[dict]]:
  """{"table1": rows, ..., "table4": rows, "targets": rows}; no rows of what was not measured.

  Args:
    results: a study's results.json; `config` is needed.
  """
  return {
    "table1": _table1(results),
    "table2": _jpeg_table(results, "altered", _TABLE2),
    "table3": [row for network in _TABLE3_NETWORKS for row in _table3(results, network)],
    "table4": _jpeg_table(results, "remedied", _TABLE4),
    "targets": _targets(results),
  }


def lookup(results: Mapping[str, Any] | None, *path: str) -> Any:
  """What stands at a path in nested sections; None where it, or a part of the way, is missing."""
  found: Any = results
  for name in path:
    found = (found or {}).get(name)
  return found


def success_rate(
  results: Mapping[str, Any], network: str, protocol: str, *, kept: bool = False
) -> dict | None:
  """The share of images with a success within the top k prototypes; None if not measured.

  Args:
    kept: a success that keeps the predicted class.
  """
  found = lookup(results, "success_rate", network, protocol) or {}
  of_goal = lookup(found, "kept") if kept else found
  return lookup(of_goal, "rate_at", str(found.get("top_k")))


def class_names(results: Mapping[str, Any]) -> list[str] | None:
  """The classes that the study's accuracies are about; None if there are no accuracies."""
  found = [lookup(record, "test", "class_names") for record in results.get("accuracy", {}).values()]
  return next((names for names in found if names), None)


def row_order(row: Mapping[str, Any]) -> tuple:
  """A sorting key: the paper's backbones in its order, then others by name; standard first, and
  from head to stomach."""
  names: Sequence[str] = list(BACKBONES.values())
  known = row["backbone"] in names
  place = names.index(row["backbone"]) if known else len(names)
  network = _TABLE3_NETWORKS.index(row["network"]) if "network" in row else 0
  way = (row.get("sat_on", ""), row.get("target", ""))
  return (place, row["backbone"], network, way != HEAD_TO_STOMACH, way)


def _start(results: Mapping[str, Any]) -> dict:
  train, names = results["config"]["train"], class_names(results)
  backbone, data = train["model"]["backbone"], train["data"]["name"]
  return {
    "backbone": BACKBONES.get(backbone, backbone),
    "data": DATA_SETS.get(data, data),
    "num_classes": len(names) if names else None,
  }


def _published(results: Mapping[str, Any], table: Mapping[str, dict], names: Sequence[str]) -> dict:
  """The published numbers for this backbone, None for those that there are not."""
  classes, config = class_names(results), results["config"]
  is_papers = config["train"]["data"]["name"] == "cub" and len(classes or ()) == 200
  numbers = table.get(config["train"]["model"]["backbone"], {}) if is_papers else {}
  return {name: numbers.get(name) for name in names}


def _table1(results: Mapping[str, Any]) -> list[dict]:
  clean = lookup(results, "accuracy", "standard", "test", "clean")
  if clean is None:
    return []
  published = _published(results, _TABLE1, ("published", "chen"))
  return [{**_start(results), "clean": clean, **published}]


def _jpeg_table(results: Mapping[str, Any], network: str, table: Mapping[str, dict]) -> list[dict]:
  numbers = lookup(results, "accuracy", network, "test")
  if numbers is None:
    return []
  return [
    {
      **_start(results),
      "alteration": _alteration(numbers),
      "classes": few(numbers["classes"]),
      "altered": numbers.get("altered"),
      "original": numbers.get("clean"),
      "altered_every_class": numbers.get("altered_every_class"),
      **_published(results, table, ("published_altered", "published_original")),
    }
  ]


def _alteration(numbers: Mapping[str, Any]) -> str:
  """ "jpeg, quality 20"."""
  name = numbers["alteration"]
  known = ALTERATIONS.get(name)  # An extension's is known only where it was loaded.
  return f"{name}, {known.parameter if known else 'parameter'} {numbers['parameter']:g}"


def few(names: Sequence[str]) -> str:
  """All of up to ten names; of more, the first ones and how many follow."""
  more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
  return ", ".join(names[:_NAMED]) + more


def _table3(results: Mapping[str, Any], network: str) -> list[dict]:
  accuracies = lookup(results, "accuracy", network, "test")
  rates = lookup(results, "success_rate", network)
  if accuracies is None and rates is None:
    return []
  table = {name: dict(zip(_TABLE3_NAMES, row)) for name, row in _TABLE3[network].items()}
  protocols = ("paper", "authors")
  return [
    {
      **_start(results),
      "network": network,
      "clean": lookup(accuracies, "clean"),
      "pgd_accuracy": lookup(accuracies, "pgd_accuracy"),
      "top_k": next((k for p in protocols if (k := lookup(rates, p, "top_k"))), None),
      "success_rate_kept": success_rate(results, network, "paper", kept=True),
      "success_rate": success_rate(results, network, "paper"),
      "success_rate_authors": success_rate(results, network, "authors"),
      **_published(results, table, _TABLE3_NAMES),
    }
  ]


def _targets(results: Mapping[str, Any]) -> list[dict]:
  movements = lookup(results, "head_on_stomach", "standard", "movements") or []
  return [{**_start(results), **movement} for movement in movements]
