"""Metrics: all of the field's published ones that the data allow, on a run's test images.

  jprotop metrics --workdir=runs/demo/standard
  jprotop metrics --workdir=RUN --out=OUT --noise=uniform
  jprotop metrics --maps=FILE.npz --out=OUT

docs/metrics says what each is. Two passes over the test images are needed: one as they are, one
with the noise of stability. --maps measures the arrays of a file in place of a run, of a network of
any framework: `maps` [N, h, w, P], `labels` [N] and `prototype_class` [P]; and, where there are,
`noisy_maps`, `parts` [N, L, 3], `masks` [N, S, S], `weights` [P, C], `pairs` [n, 2] and
`image_size` (224). A metric that the data do not allow is listed with the reason.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from tqdm import tqdm

from jprotop.data import batches
from jprotop.experiments.attacking import SEED
from jprotop.experiments.experiment import Beside, Experiment, Flag, Passage, Pictures, register
from jprotop.experiments.metrics_arrays import read_file
from jprotop.experiments.metrics_numbers import Batch, Reading, Whole, numbers
from jprotop.files import ensure_folder, user_path
from jprotop.metrics import CUB_PAIRS, Chosen, part_positions
from jprotop.metrics.consistency_score import THRESHOLDS
from jprotop.metrics.maps import own_of, own_prototypes
from jprotop.metrics.noise import KINDS, add_noise
from jprotop.metrics.prototype_purity import patch_peaks_at
from jprotop.metrics.quanproto import NUM_PROTOTYPES
from jprotop.prototypes.see import see
from jprotop.report import canvas, metric_charts, tables
from jprotop.runs.records import Number, Record
from jprotop.runs.run import Run


class Weights(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
  """Counts of the last layer, which are no sample of anything."""

  global_size: int
  num_prototypes: int
  sparsity: float
  negative_share: float | None


class Metrics(Record):
  """Numbers by metric and variant, and the reasons why others were not measured.

  A variant is "paper" or "released", a definition, or a further number of the metric.
  """

  num_images: int
  noise: str | None
  seed: int | None
  measured: dict[str, dict[str, Number]]
  missing: dict[str, str]
  consistency_curve: list[Number]
  weights: Weights | None


def explained(out: Any, batch: dict) -> dict:
  """What of a forward pass the metrics read; `own`, int [N, K], are each image's prototypes."""
  maps = out.similarity_map
  count, _, _, prototypes = maps.shape
  _, top = jax.lax.top_k(out.activations, min(NUM_PROTOTYPES, prototypes))
  by_column = maps.swapaxes(1, 2).reshape(count, -1, prototypes).argmax(axis=1)
  return {
    "own": _maps_of(maps, batch["own"]),
    "top": _maps_of(maps, top),
    "top_prototypes": top,
    "score": maps.max(axis=(1, 2)),
    "by_row": maps.reshape(count, -1, prototypes).argmax(axis=1),
    "by_column": by_column,
  }


def own_alone(out: Any, batch: dict) -> Any:
  """The maps of each image's own prototypes, [N, h, w, K]."""
  return _maps_of(out.similarity_map, batch["own"])


def _maps_of(maps, prototypes):
  return jnp.take_along_axis(maps, prototypes[:, None, None, :], axis=-1)


def measure(
  run: Run | None,
  out: pathlib.Path,
  *,
  noise: str = "gaussian",
  maps: str = "",
  beside: Beside | None = None,
) -> dict:
  """Measures a run's test images, or the arrays of a file; writes a figure and returns the record.

  Args:
    noise: of stability, one of metrics.noise.KINDS.
    maps: a file that is measured where there is no run.

  Raises:
    InputError: the file does not hold what it must, or the run has no images.
  """
  if run is None:
    whole, read = read_file(user_path(maps))
    record: dict[str, Any] = {"noise": None, "seed": None}
  else:
    seed = run.config["measure"]["seed"]
    test = run.seen.test
    points = np.stack([test.part_points(i) for i in range(len(test))])
    whole, read = _whole(run, points), _batches(run, points, noise, seed)
    record = {"noise": noise, "seed": seed}
  ensure_folder(out / "figures")
  reading, count = Reading(), 0
  for batch in read:
    reading.add(batch)
    count += len(batch.own.prototypes)
  record |= {"num_images": count, **numbers(reading, whole)}
  _draw(out / "figures", record)
  return record


def _whole(run: Run, points: np.ndarray) -> Whole:
  """`points`: the parts of all test images, [N, L, 3]."""
  test = run.seen.test
  known = bool((points[..., 2] > 0).any())
  return Whole(
    prototype_class=np.array(run.model.prototype_class),
    parts=points if known else None,
    released_parts=(
      part_positions(test.parts, test.box, image_size=test.image_size) if known else None
    ),
    pairs=CUB_PAIRS,
    weights=np.asarray(run.variables["params"]["last_layer"]),
    image_size=test.image_size,
  )


def _batches(run: Run, points: np.ndarray, kind: str, seed: int) -> Iterator[Batch]:
  """Two passes over the test images, a batch of each after the other."""
  test, size = run.seen.test, run.config["compute"]["evaluation_batch_size"]
  table = own_prototypes(np.array(run.model.prototype_class))
  with tqdm(total=len(test), desc="maps, twice", unit="image", dynamic_ncols=True) as bar:
    for crops in batches.in_order(test, size):
      images, index = batches.to_float(crops["image"]), crops["index"]
      own = own_of(crops["label"], table)
      each = {"own": np.maximum(own, 0).astype(np.int32)}
      seen = see(run.network, images, explained, batch_size=size, each=each)
      noisy = see(
        run.network, add_noise(images, index, kind=kind, seed=seed), own_alone,
        batch_size=size, each=each,
      )  # fmt: skip
      yield Batch(
        first=int(index[0]),
        own=Chosen(seen["own"], own),
        top=Chosen(seen["top"], seen["top_prototypes"]),
        noisy=Chosen(noisy, own),
        patches=patch_peaks_at(
          seen["score"], seen["by_row"], seen["by_column"], seen["own"].shape[1:3]
        ),
        parts=points[index],
        masks=None,
        image_size=test.image_size,
      )
      bar.update(len(index))


def _draw(figures: pathlib.Path, record: Mapping[str, Any]) -> None:
  if record["consistency_curve"]:
    figure = metric_charts.consistency(THRESHOLDS, record["consistency_curve"])
    canvas.save(figure, figures / "metrics_consistency.png")


def tell(record: Mapping[str, Any], out: pathlib.Path) -> Iterator[str]:
  """What the command prints."""
  passes = "" if record["noise"] is None else f", two passes, {record['noise']} noise"
  yield f"Metrics of {record['num_images']} images{passes}:"
  for row in rows_of(record):
    yield f"  {row['metric']:<23} {row['variant']:<20} {tables.format_metric(row['value'])}"
  for name, reason in record["missing"].items():
    yield f"  {name:<23} not measured: {reason}"
  if weights := record["weights"]:
    yield (
      f"  {weights['global_size']} of {weights['num_prototypes']} prototypes have a weight; "
      f"{weights['sparsity']:.1%} of the weights are 0"
    )


def rows_of(record: Mapping[str, Any]) -> Iterator[dict]:
  """A row for each number."""
  for name, variants in record["measured"].items():
    for variant, number in variants.items():
      yield {"metric": name, "variant": variant, "value": number, "unit": number["unit"]}


def _rows(found: Mapping[str, Any]) -> list[dict]:
  """A row for each metric and variant, a column for each network."""
  rows: dict[tuple, dict] = {}
  for network, record in found.items():
    for row in rows_of(record):
      key = (row["metric"], row["variant"])
      rows.setdefault(key, {"metric": key[0], "variant": key[1], "unit": row["unit"]})
      rows[key][network] = row["value"]
  return list(rows.values())


_NETWORKS = ("standard", "altered", "remedied", "adversarial")

register(
  Experiment(
    name="metrics",
    summary="the field's published metrics of explanations",
    measure=measure,
    record=Metrics,
    networks=_NETWORKS,
    settings=("seed",),
    flags=(
      Flag(
        name="noise",
        default="gaussian",
        choices=tuple(KINDS),
        help="Of stability; gaussian is the published one.",
      ),
      Flag(name="maps", help="A .npz file of arrays, measured in place of a run; needs --out."),
      SEED,
    ),
    of_file="maps",
    tell=tell,
    passages=(
      Passage(
        heading="The field's metrics",
        caption="Published metrics of explanations on the test images, as their papers define them "
        "and as their code computes them, with the image or the prototype as unit of the interval; "
        "docs/metrics says what each says, and what it does not.",
        rows=_rows,
        columns={"metric": "Metric", "variant": "Definition", "unit": "Unit"}
        | {network: network for network in _NETWORKS},
        pictures=tuple(Pictures(network=n, pattern="metrics_*.png") for n in _NETWORKS),
      ),
    ),
  )
)
