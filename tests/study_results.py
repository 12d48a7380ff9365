"""Hand-made results of a study, as experiments.reproduce would write them."""

import copy

import numpy as np

from jprotop import statistics
from jprotop.prototypes.accuracy import packed, packed_numbers
from jprotop.runs import results
from jprotop.runs.config import NETWORKS


def share(count, total):
  """A share, count of total."""
  return statistics.share([True] * count + [False] * (total - count))


def mean(value, half=0.05, total=100):
  """A mean with an interval of the given half width."""
  return {"value": value, "total": total, "interval": [value - half, value + half]}


def paired(only_a, only_b, total):
  """A paired difference, of images that count for one side alone."""
  places = np.arange(total)
  return statistics.paired_difference(places < only_a, places >= total - only_b)


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


def robustness(clean, pgd, worst, total=200):
  """The `robustness` record of one network, in images of `total`: the first ones are right."""
  right = {
    name: np.arange(total) < count
    for name, count in (("clean", clean), ("pgd", pgd), ("worst", worst))
  }
  return {
    "images": list(range(total)),
    "num_test_images": 1000,
    "eps": 8 / 255,
    "num_steps": 20,
    "restarts": 1,
    "targets": 3,
    "queries": 200,
    "seed": 0,
    "clean": share(clean, total),
    "pgd": share(pgd, total),
    "pgd_num_steps": 10,
    "after_apgd_ce": share(worst + 2, total),
    "after_apgd_targeted": share(worst, total),
    "after_square": share(worst, total),
    "worst": share(worst, total),
    "misled": {"apgd_ce": clean - worst - 2, "apgd_targeted": 2, "square": 0},
    "pgd_missed": pgd - worst,
    "hits": {name: packed(hits) for name, hits in right.items()},
  }


def rates(successes, control=2, dropped=0):
  """One protocol's success rate in 200 images: one success more with each prototype, and one less
  where the class is to be kept. The control succeeds on the first images, whose class it keeps.

  `dropped` of the last images could not be attacked.
  """
  moved, kept = (_success_at(count, dropped) for count in (successes, successes - 1))
  noise = [1] * control + [0] * (200 - control)
  return {
    "num_images": 200 - dropped,
    "num_fewer_than_asked": 0,
    "sample": sample(200),
    "top_k": 5,
    "seed": 0,
    "budget": budget(),
    **_rates(moved),
    "prediction_kept": share(successes - 1, successes),
    "success_and_prediction_kept": share(successes - 1, 200),
    "kept": _rates(kept),
    "control": {**_rates(noise), "kept": _rates(noise)},
    "displacement": {
      "distance_cells": mean(3.0, total=successes - 1),
      "distance_share": mean(0.4, total=successes - 1),
      "margin": mean(1.5, total=successes - 1),
      "off_part": share(successes - 2, successes - 1),
      "off_bird": share(1, successes - 1),
    },
    "parts": None,
    "images": {
      "index": list(range(200)),
      "moved": moved,
      "kept": kept,
      "control_moved": noise,
      "control_kept": noise,
    },
  }


def _success_at(count, dropped):
  """Of 200 images: `count` successes, the last four of them with prototypes 2 to 5."""
  late = [2, 3, 4, 5]
  return [1] * (count - 4) + late + [0] * (200 - count - dropped) + [None] * dropped


def _rates(success_at):
  attacked = [at for at in success_at if at is not None]
  counts = {str(k): sum(0 < at <= k for at in attacked) for k in range(1, 6)}
  return {
    "num_not_attackable": 200 - len(attacked),
    "rate_at": {k: share(count, len(attacked)) for k, count in counts.items()},
    "rate_of_all_at": {k: share(count, 200) for k, count in counts.items()},
  }


def strong_attack(kept, *, paper=10, control=0, solved=0, total=30):
  """The `strong_attack` record of one network: so many of 30 images moved with their class kept."""

  def of(count):
    return {
      "moved": share(min(count + 1, total), total),
      "moved_and_prediction_kept": share(count, total),
    }

  at = {"strong": kept, "paper": paper, "control": control}
  row = {
    "target": "off S",
    "mask": "S_noisy",
    "num_images": total,
    **{name: of(count) for name, count in at.items()},
    "beyond_paper": paired(max(kept - paper, 0), max(paper - kept, 0), total),
    "beyond_control": paired(max(kept - control, 0), max(control - kept, 0), total),
  }
  levels = ((1 / 255, kept // 3), (8 / 255, kept))
  return {
    "strength": "strong-small",
    "restarts": 2,
    "num_steps": 50,
    "looks": 204,
    "seed": 0,
    "budget": budget(),
    "sample": sample(total),
    "num_not_attackable": 0,
    "top_k": 5,
    **{f"{name}_at": {str(k): of(count) for k in range(1, 6)} for name, count in at.items()},
    "curve": [{"eps": eps, "strong": of(count)} for eps, count in levels],
    "by_target": [row, {**row, "target": "head to stomach"}],
    "without_gradients": {
      "queries": 1000,
      "square": of(kept // 2),
      "solved": share(solved, total - kept),
    },
    "images": [],
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
    "control_moved_and_prediction_kept": share(0, 20),
    "success_minus_control": paired(17, 0, 20),
    "success_exceeds_clean_maximum": share(15, 17),
    "success_exceeds_clean_maximum_by": mean(1.9, total=17),
    "success_share_below_own": mean(0.98, half=0.01, total=17),
    "prediction_kept": share(19, 20),
    "exceeds_clean_maximum": share(15, 20),
    "exceeds_clean_maximum_by": mean(1.4, total=20),
    "share_below_own": mean(0.9, total=20),
    "psnr": mean(38.0, total=20),
    "ssim": mean(0.95, half=0.01, total=20),
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
    "shift": drop / 10,
  }
  return {
    "num_images": 100,
    **{name: mean(value) for name, value in means.items()},
    "top_k_order_kept": share(kept, 100),
    "top_prototype_kept": share(top_kept, 100),
    "cell_moved": share(50, 100),
    "right_group_clean": share(60, 100),
    "right_group_altered": share(90, 100),
  }


def image_rows(drop, overlap, kept, top_kept):
  """The `per_image` of an `alteration` record: 100 images of altered classes, then 100 others.

  Drops are 0.25 around their mean, other for each mean.
  """
  noise = np.random.default_rng(round(abs(1000 * drop))).normal(size=100)
  noise = np.tile((noise - noise.mean()) / noise.std(), 2)
  places = np.tile(np.arange(100), 2)
  return {
    "altered_class": packed(np.arange(200) < 100),
    "similarity_drop": packed_numbers(drop + 0.25 * noise),
    "shift": packed_numbers(drop / 10 + 0.1 * noise),
    "top_k_overlap": packed_numbers(overlap + 0.05 * noise),
    "top_k_order_kept": packed(places < kept),
    "top_prototype_kept": packed(places < top_kept),
  }


def alteration(drop, top_kept=30, *, overlap=0.3, kept=5):
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
    "selections": {name: drift(drop, overlap, kept, top_kept) for name in names},
    "per_image": image_rows(drop, overlap, kept, top_kept),
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
      "data": {"name": data, "image_size": 224, "validation_share": 0.1, "twins": False},
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
      "strong_attack": {"standard": strong_attack(26), "adversarial": strong_attack(7, paper=3)},
      "alteration": {
        "altered": alteration(2.5),
        "standard": alteration(0.1, top_kept=95, overlap=0.9, kept=80),
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
      "robustness": {
        "standard": robustness(158, 0, 0),
        "adversarial": robustness(116, 48, 40),
      },
    }
  )
