"""Attacks that are not the paper's: what `config.measure` has of them."""

from jprotop.runs.config_numbers import IMAGES, Number


def strong_attacks() -> dict:
  """Attacks that are not the paper's."""
  return {
    # The worst of three attacks on the classification, with the eps that was trained against:
    # Auto-PGD on the cross entropy, from so many starts, and on the DLR with so many targets, and
    # Square Attack. AutoAttack has 100 steps, 1 restart, 9 targets and 5000 queries.
    "robustness": {
      "num_images": Number(200, 1, IMAGES),
      "eps": Number(8 / 255, 0, 1),
      "num_steps": Number(20, 1, 100_000),
      "restarts": Number(1, 1, 1000),
      "targets": Number(3, 1, 1000),
      "queries": Number(200, 1, 1_000_000),
    },
    # Noise of one network on another.
    "transfer": {"num_images": Number(30, 1, IMAGES), "num_steps": Number(40, 0, 100_000)},
    # One pattern of noise for all images, and one for each of some classes.
    "universal": {
      "num_images": Number(100, 1, IMAGES),
      "num_training_images": Number(100, 1, IMAGES),
      "num_classes": Number(2, 1, 100_000),
      "num_steps": Number(50, 0, 100_000),
    },
    # Explanations under the strong attack, at `attack.eps` and as strong as `attack.strength`.
    "strong_attack": {
      "num_images": Number(30, 1, IMAGES),
      "top_k": Number(5, 1, 100_000),
      "curve": "0.5,1,2,4",  # smaller eps that are tried before attack.eps, in 1/255
      "targets": "head to stomach,random rectangle",  # where prototypes are sent, beside off S
      "queries": Number(1000, 0, 100_000),  # looks of Square attack, without gradients; 0: none
    },
  }
