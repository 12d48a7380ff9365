"""Head on Stomach (Section 3): move where a prototype is found, by noise that nobody sees."""

import numpy as np

from jprotop import metrics, parallel, regions
from jprotop.data.own_images import Images
from jprotop.evaluation.attack import Budget, Order, as_record, as_saved, with_control
from jprotop.evaluation.attack_cases import Cases, Rules
from jprotop.models.protopnet import ProtoPNet


def attack(
  model: ProtoPNet,
  variables: dict,
  cases: Cases,
  budget: Budget,
  rules: Rules,
  *,
  seed: int,
  batch_size: int,
) -> dict[str, np.ndarray]:
  """Solves Eq. (3) for every case.

  Returns:
    Arrays with a leading axis N: `images`, `attacked` [S, S, 3]; `mask` [S, S], the pixels of
    S_noisy; `source`, `target` [h, w]; `prototype`; and for each of clean, attacked and control
    (random signs of size eps on the same mask) `*_similarity_map` [h, w] and `*_logits` [C].
  """
  size = cases.images.image.shape[1]
  order = Order(
    image=cases.images.image,
    pixels=regions.cells_to_pixels(cases.target, size, size),
    prototype=cases.prototype,
    key=parallel.key_array(seed, np.arange(len(cases.images))),
    source=cases.source,
    target=cases.target,
  )
  seen = with_control(
    model, variables, order, budget, kind="move", rules=rules, batch_size=batch_size
  )
  return {"source": cases.source, "target": cases.target, **as_record(order, seen)}


def highest(maps: np.ndarray, cells: np.ndarray) -> np.ndarray:
  """Maximum of maps [N, h, w] over boolean cells [N, h, w], [N]."""
  return np.where(cells, maps, -np.inf).max(axis=(1, 2))


def peak_inside(maps: np.ndarray, cells: np.ndarray) -> np.ndarray:
  """Whether the first maximum of each map [N, h, w] lies in its cells."""
  flat = maps.reshape(len(maps), -1)
  return cells.reshape(len(maps), -1)[np.arange(len(maps)), flat.argmax(axis=1)]


def summarise(
  record: dict[str, np.ndarray],
  rule: list[str],
  *,
  activations: np.ndarray | None = None,
  log_similarity: bool = True,
) -> dict:
  """The numbers of Head on Stomach from the arrays of `attack`, each with count and interval.

  Similarities are maxima over the cells of S or S_noisy: what the network reports there.

  Args:
    record: what `attack` returns.
    rule: how each image's S_noisy was chosen.
    activations: [N_test, P] of all clean test images, for the percentiles; None leaves them out.
    log_similarity: whether similarities are logarithmic, so that 4 is "very high" (Section 3).
  """
  clean, attacked = record["clean_similarity_map"], record["attacked_similarity_map"]
  source, target = record["source"], record["target"]
  moved = peak_inside(attacked, target)
  kept = record["attacked_logits"].argmax(1) == record["clean_logits"].argmax(1)
  after, highest_clean = highest(attacked, target), clean.max(axis=(1, 2))
  numbers = {
    "moved_to_target": metrics.share(moved),
    "exceeds_clean_maximum": metrics.share(after > highest_clean),
    "exceeds_clean_maximum_by": metrics.mean(after - highest_clean),
    "prediction_kept": metrics.share(kept),
    "moved_and_prediction_kept": metrics.share(moved & kept),
    "clean_peak_in_target": metrics.share(peak_inside(clean, target)),
    "control_moved": metrics.share(peak_inside(record["control_similarity_map"], target)),
    "similarity_source_before": metrics.mean(highest(clean, source)),
    "similarity_source_after": metrics.mean(highest(attacked, source)),
    "similarity_target_before": metrics.mean(highest(clean, target)),
    "similarity_target_after": metrics.mean(after),
    "largest_change": float(np.abs(record["attacked"] - record["images"]).max()),
  }
  if activations is not None:
    numbers["percentile_of_attacked"] = metrics.mean(share_below(activations, after))
    if log_similarity:
      # By images: the similarities of one image to all prototypes are not independent.
      numbers["percentile_of_4"] = metrics.mean((activations < 4).mean(axis=1))
  rules = np.array(rule)
  by_rule = {
    str(r): {"moved_to_target": metrics.share(moved[rules == r])} for r in np.unique(rules)
  }
  return {"metrics": numbers, "by_target": by_rule}


def share_below(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
  """Share of all values, of any shape, that are below each of levels [N], [N]."""
  return np.searchsorted(np.sort(values, axis=None), levels, side="left") / values.size


def per_image(record: dict[str, np.ndarray], cases: Cases, class_names: list[str]) -> list[dict]:
  """One row an image, for results.json and for tables."""
  clean, attacked = record["clean_similarity_map"], record["attacked_similarity_map"]
  columns = {
    "similarity_source_before": highest(clean, record["source"]),
    "similarity_source_after": highest(attacked, record["source"]),
    "similarity_target_before": highest(clean, record["target"]),
    "similarity_target_after": highest(attacked, record["target"]),
  }
  moved = peak_inside(attacked, record["target"])
  rows = []
  for i, image_id in enumerate(cases.images.image_id):
    label = int(cases.images.label[i])
    rows.append(
      {
        "image_id": image_id,
        "prototype": int(cases.prototype[i]),
        "true_class": class_names[label] if label >= 0 else None,
        "predicted_before": class_names[int(record["clean_logits"][i].argmax())],
        "predicted_after": class_names[int(record["attacked_logits"][i].argmax())],
        "target": cases.rule[i],
        "cells_in_source_and_target": int((record["source"][i] & record["target"][i]).sum()),
        "prototype_sits_on": cases.source_group[i] or None,
        "moved_to_target": bool(moved[i]),
        **{name: float(values[i]) for name, values in columns.items()},
      }
    )
  return rows


def _look_batch(model: ProtoPNet, quality: int | None, variables: dict, batch: dict) -> dict:
  out = model.apply(variables, as_saved(batch["image"], quality))
  return {name: getattr(out, name) for name in ("logits", "activations", "similarity_map")}


def look(
  model: ProtoPNet,
  variables: dict,
  images: Images,
  batch_size: int,
  survive_jpeg: int | None = None,
) -> dict:
  """logits [N, C], activations [N, P] and similarity maps [N, h, w, P] of clean images.

  Args:
    survive_jpeg: as in `attack.Budget`.
  """
  rows = parallel.round_up(min(batch_size, len(images)))
  batches = parallel.chunks({"image": images.image}, rows)
  look_batch = parallel.per_example(_look_batch, model, survive_jpeg)
  return parallel.gather_examples(look_batch, variables, batches, rows)
