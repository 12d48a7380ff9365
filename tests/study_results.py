"""Hand-made results of a study, as experiments.reproduce would write them."""

import copy

from jprotop import metrics

NETWORKS = ("standard", "jpeg", "adversarial", "jpeg_augmented")


def share(count, total):
  """A share, count of total."""
  return metrics.share([True] * count + [False] * (total - count))


def mean(value, half=0.05, total=100):
  """A mean with an interval of the given half width."""
  return {"value": value, "total": total, "interval": [value - half, value + half]}


def accuracies(clean, altered, robust=0):
  """The `evaluate` section of one network, in images of 1000."""
  return {
    "clean": share(clean, 1000),
    "altered": share(altered, 1000),
    "altered_every_class": share(altered - 1, 1000),
    "robust": share(robust, 1000),
    "compressed_classes": {"clean": share(clean // 2, 500), "altered": share(altered // 2, 500)},
    "uncompressed_classes": {"clean": share(clean // 2, 500)},
    "altered_minus_clean": mean((altered - clean) / 1000, half=0.01, total=1000),
  }


def rates(successes, control=2):
  """One protocol's success rate in images of 200: one success more with each prototype."""
  by_k = {str(k): share(successes - 5 + k, 200) for k in range(1, 6)}
  return {
    "num_images": 200,
    "num_not_attackable": 0,
    "num_fewer_than_asked": 0,
    "top_k": 5,
    "rate_at": by_k,
    "prediction_kept": share(successes - 1, successes),
    "success_and_prediction_kept": share(successes - 1, 200),
    "control": {"rate_at": {str(k): share(control, 200) for k in range(1, 6)}},
    "parts": None,
  }


def drift(drop, overlap=0.3, kept=5, top_kept=30):
  """The numbers of one network and one selection of the JPEG experiment."""
  means = {
    "similarity_compressed": 4.6,
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


def jpeg_drift(drop, top_kept=30):
  """The `jpeg_drift` section of one network."""
  names = ("paper", "compressed_classes", "uncompressed_classes", "all")
  return {
    "quality": 20,
    "classes": ["001.Black_footed_Albatross"],
    "top_k": 5,
    "num_prototypes": 2000,
    "selections": {name: drift(drop, top_kept=top_kept) for name in names},
  }


def study(backbone="resnet34", *, data="cub", classes=200, seed=0, more=0):
  """A study in which all of the paper's claims hold; `more` images are right than otherwise."""
  names = [f"{i + 1:03d}.Class_{i}" for i in range(classes)]
  evaluate = {
    "standard": accuracies(790 + more, 700, robust=0),
    "jpeg": accuracies(460 + more, 820),
    "adversarial": accuracies(580 + more, 500, robust=240),
    "jpeg_augmented": accuracies(770 + more, 760),
  }
  return copy.deepcopy(
    {
      "config": {
        "seed": seed,
        "protocol": "paper",
        "variant": "standard",
        "data": {"name": data, "dir": f"/data/{seed}", "image_size": 224, "validation_share": 0.1},
        "model": {"backbone": backbone, "prototype_depth": 256},
        "attack": {"eps": 8 / 255, "step_size": 2 / 255, "num_steps": 40, "batch_size": 10},
        "training": {"batch_size": 80},
      },
      "environment": {"python": "3.11.7"},
      "seed": seed,
      "protocol": "paper",
      # The validation split, and so the identity, is drawn from the seed.
      "data": f"{data}-{classes}-{seed}",
      "evaluate": {name: {**n, "class_names": names} for name, n in evaluate.items()},
      "push": {
        name: {
          "num_prototypes": 2000,
          "distinct": 1990,
          "accuracy_before": share(790, 1000),
          "accuracy_after": share(780, 1000),
        }
        for name in NETWORKS
      },
      "success_rate": {
        "standard": {"paper": rates(150), "authors": rates(186), "ablation": []},
        "adversarial": {"paper": rates(30), "authors": rates(54)},
      },
      "head_on_stomach": {
        "eps": 8 / 255,
        "metrics": {
          "moved_to_target": share(18, 20),
          "control_moved": share(0, 20),
          "moved_and_prediction_kept": share(17, 20),
          "prediction_kept": share(19, 20),
          "exceeds_clean_maximum": share(15, 20),
          "exceeds_clean_maximum_by": mean(1.9),
          "percentile_of_attacked": mean(0.98, half=0.01),
          "percentile_of_4": mean(0.999, 0.001),
        },
      },
      "jpeg_drift": {
        "jpeg": jpeg_drift(2.5),
        "standard": jpeg_drift(0.1),
        "jpeg_augmented": jpeg_drift(0.4),
      },
    }
  )
