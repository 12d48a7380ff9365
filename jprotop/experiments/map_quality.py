"""Whether similarity maps still say something: how peaked they are, and whether they all agree.

  jprotop map-quality --workdir=runs/demo/adversarial

A training that makes explanations hard to move can do so by making them say nothing: maps that are
flat, or that peak in the same place on every image. No verdict on how often explanations are moved
rests on a network whose maps collapsed, by the rule of `collapse`.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jprotop import statistics
from jprotop.experiments.experiment import Beside, Experiment, Passage, register
from jprotop.metrics.maps import own_of, own_prototypes
from jprotop.prototypes.protopnet import grid_of
from jprotop.prototypes.see import see
from jprotop.report import tables
from jprotop.report.paper_tables import NETWORK_NAMES
from jprotop.runs.records import Mean, Record
from jprotop.runs.run import Run

# Of what the standard network's maps have, the least that counts as a map.
_LEAST = 0.5
# The share of a class's images on which a prototype may be highest in one and the same cell.
_SAME = 0.9


class MapQuality(Record):
  """Of the maps of the prototypes of each test image's class.

  peak_over_mean is a mean over images: the map's maximum minus its mean, in units of similarity.
  commonest_cell is a mean over prototypes: the share of their class's images on which they are
  highest in the cell where they most often are.
  """

  num_images: int
  num_cells: int
  peak_over_mean: Mean
  commonest_cell: Mean


def peaks(out: Any, batch: dict) -> dict:
  """How far the maps of each image's `own` prototypes, int [N, K], rise above their mean, and in
  which cell they are highest: [N, K] each."""
  maps = jnp.take_along_axis(out.similarity_map, batch["own"][:, None, None, :], axis=-1)
  flat = maps.reshape(len(maps), -1, maps.shape[-1])
  return {"peak": flat.max(axis=1) - flat.mean(axis=1), "cell": flat.argmax(axis=1)}


def measure(run: Run, out: pathlib.Path, *, beside: Beside | None = None) -> dict:
  """One pass over the test images as they are."""
  test, size = run.dataset.test, run.config["compute"]["evaluation_batch_size"]
  own = own_of(test.label, own_prototypes(np.array(run.model.prototype_class)))
  each = {"own": np.maximum(own, 0).astype(np.int32)}
  found = see(run.network, test, peaks, batch_size=size, each=each)
  height, width = grid_of(run.model, run.image_size)
  return {
    "num_images": len(test),
    "num_cells": height * width,
    **numbers(own, found["peak"], found["cell"]),
  }


def numbers(
  own: Int[np.ndarray, "N K"], peak: Float[np.ndarray, "N K"], cell: Int[np.ndarray, "N K"]
) -> dict:
  """The means of `MapQuality`; own is -1 where a class has fewer than K prototypes."""
  there = own >= 0
  known = there.any(axis=1)
  by_image = np.where(there, peak, 0).sum(axis=1)[known] / there.sum(axis=1)[known]
  commonest = [np.bincount(cell[own == j]).max() / (own == j).sum() for j in np.unique(own[there])]
  return {
    "peak_over_mean": statistics.mean(by_image),
    "commonest_cell": statistics.mean(commonest),
  }


def collapse(results: Mapping[str, Any]) -> str:
  """How the adversarial network's maps collapsed, in words; nothing where they did not.

  They did where they rise less than half as far above their mean as the standard network's, or sit
  on one part less than half as often (consistency, where `metrics` measured it): each with the
  whole 95% interval of the first minus half of the second below 0; or where the interval of the
  share of images on which prototypes are highest in one and the same cell lies above 90%.
  """
  reasons = []
  for name, metric in (("are flat", _peak), ("no longer sit on one part", _consistency)):
    before, after = (metric(results, network) for network in ("standard", "adversarial"))
    if before and after:
      interval = statistics.difference_interval(after, before, factor=_LEAST)
      if interval and interval[1] < 0:
        reasons.append(f"{name} ({_text(after)}; the standard network's {_text(before)})")
  same = results.get("map_quality", {}).get("adversarial", {}).get("commonest_cell")
  if same and same["interval"] and same["interval"][0] > _SAME:
    reasons.append(f"are highest in the same cell on all images ({_text(same)})")
  return " and ".join(reasons)


def _peak(results: Mapping[str, Any], network: str) -> dict | None:
  return results.get("map_quality", {}).get(network, {}).get("peak_over_mean")


def _consistency(results: Mapping[str, Any], network: str) -> dict | None:
  measured = results.get("metrics", {}).get(network, {}).get("measured", {})
  return measured.get("consistency", {}).get("paper")


def _text(metric: Mapping[str, Any]) -> str:
  return tables.format_metric(metric)


def unless_collapsed(claims: list[dict], results: Mapping[str, Any]) -> list[dict]:
  """Claims about where the adversarial network's maps are highest, undecided where those
  collapsed."""
  if not (how := collapse(results)):
    return claims
  note = f"; no verdict, because that network's maps {how}"
  return [
    {**claim, "verdict": "undecided", "evidence": claim["evidence"] + note} for claim in claims
  ]


def tell(record: Mapping[str, Any], out: pathlib.Path) -> Iterator[str]:
  """What the command prints."""
  yield f"Maps of {record['num_images']} images, of the prototypes of each image's class:"
  yield f"  maximum minus mean, in similarity           {_text(record['peak_over_mean'])}"
  yield (
    f"  share of images with one and the same cell  {_text(record['commonest_cell'])}, of "
    f"{record['num_cells']} cells"
  )


def _rows(found: Mapping[str, Any]) -> list[dict]:
  return [{"network": NETWORK_NAMES[network], **record} for network, record in found.items()]


register(
  Experiment(
    name="map_quality",
    summary="whether similarity maps are peaked, and differ from image to image",
    measure=measure,
    record=MapQuality,
    networks=("standard", "adversarial"),
    tell=tell,
    passages=(
      Passage(
        heading="Do the maps still say something?",
        caption="A training that makes explanations hard to move can do so with maps that are flat "
        "or that peak in the same place on every image. Where the adversarial network's maps rise "
        "less than half as far above their mean as the standard network's, sit on one part less "
        "than half as often (consistency, among the field's metrics), or are highest in one cell "
        "on more than 90% of the images, by their 95% intervals, there is no verdict on how often "
        "its explanations are moved.",
        rows=_rows,
        columns={
          "network": "Network",
          "peak_over_mean": "Maximum minus mean, similarity",
          "commonest_cell": "Share of a class's images with the same cell",
          "num_cells": "Cells",
        },
      ),
    ),
  )
)
