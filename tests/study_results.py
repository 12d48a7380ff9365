"""Hand-made results of a study, as experiments.reproduce would write them."""

import copy

import numpy as np

from jprotop import statistics
from jprotop.prototypes.accuracy import packed
from jprotop.runs import results
from jprotop.runs.config import NETWORKS


def share(count, total):
  """A share, count of total."""
  return statistics.share([True] * count + [False] * (total - count))


def mean(value, half=0.05, total=100):
  """A mean with an interval of the given half width."""
  return {"value": value, "total": total, "interval": [value - half, value + half]}


def accuracies(clean, altered, pgd=0, classes=()):
  """The `accuracy` record of one network, in test images of 1000: the first ones are right."""
  right = {
    name: np.arange(1000) < count
    for name, count in (("clean", clean), ("altered", altered), ("pgd_accuracy", pgd))
  }
  test = {
    "clean": share(clean, 1000),
    "altered": share(altered, 1000),
    "altered_every_class": share(altered - 1, 1000),
    "pgd_accuracy": share(pgd, 1000),
    "altered_classes": {"clean": share(clean // 2, 500), "altered": share(altered // 2, 500)},
    "other_classes": {"clean": share(clean // 2, 500)},
    "altered_minus_clean": statistics.paired_difference(right["altered"], right["clean"]),
    "hits": {name: packed(hits) for name, hits in right.items()},
    "alteration": "jpeg",
    "parameter": 20.0,
    "classes": [],
    "confusion": [],
    "class_names": list(classes),
    "finished_training": True,
  }
  return {"test": test}


def rates(successes, control=2):
  """One protocol's success rate in images of 200: one success more with each prototype."""
  by_k = {str(k): share(successes - 5 + k, 200) for k in range(1, 6)}
  return {
    "num_images": 200,
    "num_not_attackable": 0,
    "num_fewer_than_asked": 0,
    "sample": sample(200),
    "top_k": 5,
    "seed": 0,
    "budget": budget(),
    "rate_at": by_k,
    "prediction_kept": share(successes - 1, successes),
    "success_and_prediction_kept": share(successes - 1, 200),
    "control": {
      "num_not_attackable": 0,
      "rate_at": {str(k): share(control, 200) for k in range(1, 6)},
    },
    "parts": None,
  }


def sample(taken, asked=None):
  """Where drawn images come from: 1000 test images, 900 of them classified correctly."""
  return {
    "asked": asked or taken, "available": 1000, "correct": 900, "networks": 1, "taken": taken,
  }  # fmt: skip


def budget():
  return {
    "eps": 8 / 255,
    "step_size": 2 / 255,
    "num_steps": 40,
    "random_start": True,
    "survive_jpeg": None,
  }


def head_on_stomach(**metrics):
  """The `head_on_stomach` record of one network; `metrics` are other than otherwise."""
  similarities = {
    f"similarity_{cells}_{when}": mean(3.0, total=20)
    for cells in ("source", "target")
    for when in ("before", "after")
  }
  found = {
    "moved_to_target": share(18, 20),
    "control_moved": share(0, 20),
    "moved_and_prediction_kept": share(17, 20),
    "prediction_kept": share(19, 20),
    "exceeds_clean_maximum": share(15, 20),
    "exceeds_clean_maximum_by": mean(1.9),
    "clean_peak_in_target": share(0, 20),
    **similarities,
    "largest_change": 8 / 255,
    "share_below_attacked": mean(0.98, half=0.01),
    "share_below_4": mean(0.999, 0.001),
  }
  return {
    "request": {"images": None, "prototype": None, "cells": None, "part": None},
    "num_images": 20,
    "sample": sample(20),
    "not_attacked": [],
    "num_overlapping": 0,
    "unreadable": [],
    "protocol": "paper",
    "seed": 0,
    **budget(),
    "metrics": {**found, **metrics},
    "by_target": {"stomach": {"moved_to_target": share(18, 20)}},
    "movements": [
      {
        "sat_on": sat_on,
        "target": "stomach",
        "moved_to_target": moved,
        "control_moved": share(0, moved["total"]),
      }
      for sat_on, moved in (("head", share(11, 12)), ("back", share(7, 8)))
    ],
    "images": [],
  }


def drift(drop, overlap=0.3, kept=5, top_kept=30):
  """The numbers of one network and one selection of the JPEG experiment."""
  means = {
    "similarity_altered": 4.6,
    "similarity_clean": 4.6 - drop,
    "similarity_drop": drop,
    "similarity_drop_reverse": drop,
    "top_k_overlap": overlap,
    "rank_correlation": 0.4,
    "cell_shift": 1.0,
  }
  return {
    "num_images": 100,
    **{name: mean(value) for name, value in means.items()},
    "top_k_order_kept": share(kept, 100),
    "top_prototype_kept": share(top_kept, 100),
    "cell_moved": share(50, 100),
  }


def alteration(drop, top_kept=30):
  """The `alteration` record of one network."""
  names = ("paper", "altered_classes", "other_classes", "all")
  return {
    "alteration": "jpeg",
    "parameter": 20,
    "classes": ["001.Black_footed_Albatross"],
    "trained_on": "altered",
    "trained_as_measured": True,
    "top_k": 5,
    "num_prototypes": 2000,
    "shown": [3, 17],
    "num_figures_asked": 2,
    "selections": {name: drift(drop, top_kept=top_kept) for name in names},
  }


def training(network="standard"):
  """The `training` record of one network."""
  found = {
    "push": {
      "num_prototypes": 2000,
      "distinct": 1990,
      "accuracy_before": share(790, 1000),
      "accuracy_after": share(780, 1000),
    },
    "robustness": None,
  }
  if network == "adversarial":
    right = np.arange(100) < 50
    found["robustness"] = {
      "epochs": 20,
      "fgsm_accuracy": statistics.share(right),
      "pgd_accuracy": statistics.share(right),
      "difference": statistics.paired_difference(right, right),
      "parted": [],
    }
  return found


def map_quality():
  """The `map_quality` record of one network."""
  return {
    "num_images": 1000,
    "num_cells": 49,
    "peak_over_mean": mean(3.0, total=1000),
    "commonest_cell": mean(0.3, total=2000),
  }


def config(backbone="resnet34", *, data="cub", seed=0):
  """What a study's config says of what its numbers depend on."""
  jpeg = {"name": "jpeg", "parameter": 20, "classes": "default", "seed": seed}
  noise = {"eps": 8 / 255, "step_size": 2 / 255}
  return {
    "data": {"dir": f"/data/{seed}", "cache": ""},
    "train": {
      "network": "standard",
      "protocol": "paper",
      "seed": seed,
      "data": {"name": data, "image_size": 224, "validation_share": 0.1},
      "model": {"backbone": backbone, "prototype_depth": 256},
      "batch_size": 80,
      "alteration": jpeg,
    },
    "measure": {
      "protocol": "paper",
      "seed": seed,
      "attack": {**noise, "num_images": 20, "num_steps": 40},
      "class_pgd": {**noise, "num_steps": 10},
      "alteration": jpeg,
    },
    "compute": {"attack_batch_size": 10},
  }


def study(backbone="resnet34", *, data="cub", classes=200, seed=0, more=0):
  """A study in which all of the paper's claims hold; `more` images are right than otherwise."""
  names = [f"{i + 1:03d}.Class_{i}" for i in range(classes)]
  return copy.deepcopy(
    {
      **results.header(config(backbone, data=data, seed=seed)),
      "environment": {"reproduce": {"python": "3.11.7"}},
      # The validation split, and so the identity, is drawn from the seed.
      "data": f"{data}-{classes}-{seed}",
      "head_on_stomach": {"standard": head_on_stomach()},
      "success_rate": {
        "standard": {"paper": rates(150), "authors": rates(186), "ablation": []},
        "adversarial": {"paper": rates(30), "authors": rates(54)},
      },
      "alteration": {
        "altered": alteration(2.5),
        "standard": alteration(0.1),
        "remedied": alteration(0.4),
      },
      "accuracy": {
        "standard": accuracies(790 + more, 700, pgd=0, classes=names),
        "altered": accuracies(460 + more, 820, classes=names),
        "adversarial": accuracies(580 + more, 500, pgd=240, classes=names),
        "remedied": accuracies(770 + more, 760, classes=names),
      },
      "training": {network: training(network) for network in NETWORKS},
      "map_quality": {network: map_quality() for network in ("standard", "adversarial")},
    }
  )
