"""Vanishing head: noise on the place where a prototype is found, so that it is found no more.

The reference code's third attack; the paper does not mention it.
"""

import numpy as np

from jprotop import metrics, parallel, regions
from jprotop.data.own_images import Images
from jprotop.evaluation.attack import Budget, Order, Seen, with_control
from jprotop.models.protopnet import ProtoPNet


def attack(
  model: ProtoPNet,
  variables: dict,
  images: Images,
  prototype: np.ndarray,
  maps: np.ndarray,
  budget: Budget,
  *,
  seed: int,
  batch_size: int,
) -> tuple[Order, dict[str, Seen]]:
  """Lowers each image's activation of its prototype, by noise in the box of high activation.

  Args:
    prototype: int [N].
    maps: [N, h, w], each prototype's similarity map on the clean image.

  Returns:
    What was ordered, and what the network sees in the clean, attacked and control images; see
    `attack.with_control`.
  """
  order = Order(
    image=images.image,
    pixels=box_pixels(maps, images.image.shape[1]),
    prototype=prototype,
    key=parallel.key_array(seed, np.arange(len(images))),
  )
  seen = with_control(model, variables, order, budget, kind="vanish", batch_size=batch_size)
  return order, seen


def box_pixels(maps: np.ndarray, size: int) -> np.ndarray:
  """Boolean [N, size, size]: the pixels of each map's box of high activation, not whole cells."""
  pixels = np.zeros((len(maps), size, size), bool)
  for mask, similarity_map in zip(pixels, maps):
    box = regions.high_activation_box(similarity_map, size, size)
    mask[box.y0 : box.y1, box.x0 : box.x1] = True
  return pixels


def summarise(
  prototype: np.ndarray, seen: dict[str, Seen], *, log_similarity: bool = True
) -> dict[str, dict]:
  """The numbers of the attack, each with count and interval.

  Args:
    prototype: int [N], which was attacked.
    seen: what `attack` returns.
    log_similarity: whether similarities are logarithmic, so positive; the other kind has no
      relative drop and no half.
  """
  rows = np.arange(len(prototype))
  before, after, control = (
    seen[name].activations[rows, prototype] for name in ("clean", "attacked", "control")
  )
  top_before, top_after = (
    seen[name].activations.argmax(axis=1) == prototype for name in ("clean", "attacked")
  )
  predicted = {name: seen[name].logits.argmax(axis=1) for name in ("clean", "attacked")}
  numbers = {
    "similarity_before": metrics.mean(before),
    "similarity_after": metrics.mean(after),
    "drop": metrics.mean(before - after),
    "control_drop": metrics.mean(before - control),
    # Only where it was the image's most activated prototype at first.
    "no_longer_most_activated": metrics.share(~top_after[top_before]),
    "prediction_kept": metrics.share(predicted["attacked"] == predicted["clean"]),
  }
  if log_similarity:
    numbers["relative_drop"] = metrics.mean((before - after) / before)
    numbers["halved"] = metrics.share(after < before / 2)
    numbers["control_halved"] = metrics.share(control < before / 2)
  return numbers
