"""What the explanation of images writes: texts to read as plain values, and pages to look at."""

import functools
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from jprotop import regions, statistics
from jprotop.data.batches import to_float
from jprotop.data.own_images import Images
from jprotop.prototypes import explain
from jprotop.prototypes.protopnet import grid_of
from jprotop.report import canvas, explanations
from jprotop.runs.run import Run

# Many small pictures on a page: within the usual size its text could not be read.
_PAGE = {"dpi": 110, "max_bytes": 1_200_000}


def tell_images(run: Run, chosen: Images, record: dict, num_classes: int) -> list[dict]:
  """explain.json's entries, one an image."""
  return [tell_image(run, chosen, record, i, num_classes) for i in range(len(chosen))]


def tell_image(run: Run, chosen: Images, record: dict, i: int, num_classes: int) -> dict:
  """One image's entry in explain.json."""
  names, logits, label = run.class_names, record["logits"][i], int(chosen.label[i])
  top = statistics.top_columns(logits[None], num_classes)[0].tolist()
  tell = functools.partial(_tell_prototypes, run, record, i)
  entry = {
    "image_id": chosen.image_id[i],
    "true_class": names[label] if label >= 0 else None,
    "predicted_class": names[top[0]],
    "top_prototypes": tell(record["top_prototypes"][i], top[0]),
    "top_classes": [
      {
        "class": names[c],
        "score": float(logits[c]),
        "prototypes": tell(np.flatnonzero(np.array(run.model.prototype_class) == c), c),
      }
      for c in top
    ],
  }
  if "ensemble_logits" in record:
    scores = record["ensemble_logits"][i]
    best = statistics.top_columns(scores[None], num_classes)[0]
    entry["ensemble"] = [{"class": names[c], "score": float(scores[c])} for c in best]
  return entry


def _tell_prototypes(run: Run, record: dict, i: int, prototypes: np.ndarray, label: int) -> list:
  """What each prototype sees in image i, and what it adds to the score of a class."""
  weights = np.asarray(run.variables["params"]["last_layer"])
  activations = record["activations"][i : i + 1]
  added = explain.contributions(activations, weights, np.array([label]))[0]
  boxes = explain.boxes_of(record["similarity_map"][i][..., prototypes], run.image_size)
  return [
    {
      "prototype": p,
      "class": run.class_names[run.model.prototype_class[p]],
      "activation": float(activations[0, p]),
      "weight": float(weights[p, label]),
      "contribution": float(added[p]),
      "box": box.tolist(),
      "source": _tell_source(run, p),
    }
    for p, box in zip(np.asarray(prototypes).tolist(), boxes)
  ]


def _tell_source(run: Run, prototype: int) -> dict | None:
  """Where a prototype came from; None if that is not known."""
  source = run.source(prototype)
  if source is None:
    return None
  return {"image_id": source.image_id, "class": source.class_name, "box": list(source.box)}


def tell_nearest(run: Run, prototypes: Int[np.ndarray, " Q"], found: dict) -> list[dict]:
  """One entry a prototype of nearest.json; `found` holds explain.nearest_in_split of each split."""
  return [
    {
      "prototype": int(p),
      "class": run.class_names[run.model.prototype_class[p]],
      "source": _tell_source(run, p),
      **{name: _tell_patches(run, name, near, q) for name, near in found.items()},
    }
    for q, p in enumerate(prototypes)
  ]


def _tell_patches(run: Run, name: str, near: dict, q: int) -> list[dict]:
  split = run.seen.split(name)
  return [
    {
      "image_id": split.image_id[image],
      "class": run.class_names[near["label"][q, k]],
      "sq_dist": float(near["sq_dist"][q, k]),
      "cell": near["cell"][q, k].tolist(),
      "box": near["box"][q, k].tolist(),
    }
    for k, image in enumerate(near["image"][q])
  ]


# --- pages


def draw_images(
  figures: pathlib.Path, run: Run, chosen: Images, record: dict, told: list[dict]
) -> None:
  """figures/explain_N.png, a page an image, from what `tell_image` says of each."""
  for i, entry in enumerate(tqdm(told, desc="explaining", unit="image", dynamic_ncols=True)):
    size, evidence = chosen.image.shape[1], []
    for item in entry["top_prototypes"]:
      evidence.append(
        explanations.Evidence(
          prototype_id=item["prototype"],
          prototype_class=item["class"],
          source=run.source(item["prototype"]),
          map_up=regions.upsample(record["similarity_map"][i, ..., item["prototype"]], size, size),
          box=regions.Box(*item["box"]),
          peak=regions.peak_box(record["similarity_map"][i, ..., item["prototype"]], size, size),
          similarity=item["activation"],
          weight=item["weight"],
        )
      )
    example = explanations.Explanation(
      image=chosen.image[i],
      image_id=entry["image_id"],
      true_class=entry["true_class"],
      scores=_named(entry["top_classes"]),
      evidence=evidence,
      ensemble=_named(entry.get("ensemble", [])),
    )
    path = figures / f"explain_{i}.png"
    canvas.save(explanations.explanation(example), path, **_PAGE)


def _named(rows: list[dict]) -> list[tuple[str, float]]:
  return [(row["class"], row["score"]) for row in rows]


def draw_nearest(
  figures: pathlib.Path,
  run: Run,
  prototypes: Int[np.ndarray, " Q"],
  found: dict,
  num_pages: int | None,
) -> None:
  """figures/nearest_LABEL.png, a page for each of the prototypes' first classes (None: all)."""
  own = np.array(run.model.prototype_class)[prototypes]
  grid = grid_of(run.model, run.image_size)
  for label in tqdm(np.unique(own)[:num_pages], desc="drawing", unit="class", dynamic_ncols=True):
    these = np.flatnonzero(own == label).tolist()
    rows = [_neighbourhood(run, int(prototypes[q]), found, q, grid) for q in these]
    figure = explanations.nearest_patches(run.class_names[label], rows)
    canvas.save(figure, figures / f"nearest_{label}.png", **_PAGE)


def _neighbourhood(
  run: Run, prototype: int, found: dict, q: int, grid: tuple[int, int]
) -> explanations.Neighbourhood:
  size = (run.image_size, run.image_size)

  def patches(name: str) -> Iterator[explanations.NearPatch]:
    near = {key: values[q] for key, values in found[name].items()}
    for k, image in enumerate(near["image"]):
      yield explanations.NearPatch(
        image=to_float(run.seen.split(name).pixels[image]),
        box=regions.Box(*near["box"][k].tolist()),
        peak=regions.cell_box(tuple(near["cell"][k].tolist()), grid, size),
        class_name=run.class_names[near["label"][k]],
        own_class=bool(near["label"][k] == run.model.prototype_class[prototype]),
        sq_dist=float(near["sq_dist"][k]),
      )

  return explanations.Neighbourhood(
    prototype_id=prototype,
    source=run.source(prototype),
    train=list(patches("train")),
    test=list(patches("test")),
  )
