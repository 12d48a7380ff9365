"""Universal noise: one pattern that moves what explains many images, also such as it never saw.

  jprotop universal --workdir=runs/demo/standard
  jprotop universal --workdir=RUN --num_classes=10 --num_steps=200 --eps=4/255

Patterns are fitted on training images, one for all and one for each of --num_classes classes, and
shown with test images that the network classifies correctly. A success is that the image's own top
prototype is found more strongly outside its own S than inside. The control is one pattern of random
signs. universal.npz holds fitted_for [K] and pattern [K, S, S, 3].
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from jprotop.attacks import transfer, universal
from jprotop.attacks.budget import Budget
from jprotop.attacks.objectives import objective_of
from jprotop.attacks.perturb import OnMaps
from jprotop.data import batches
from jprotop.data.dataset import Split
from jprotop.experiments.attacking import SEED, budget_of, count_flag, noise_flags, rows_of
from jprotop.experiments.experiment import Beside, Experiment, Passage, Pictures, register
from jprotop.experiments.universal_numbers import ALL, Seen, Universal, summarise
from jprotop.files import atomic_path, ensure_folder
from jprotop.prototypes import selectors
from jprotop.prototypes.see import see
from jprotop.report import canvas, tables, universal_charts
from jprotop.report.paper_tables import NETWORK_NAMES
from jprotop.runs.run import Run


@dataclasses.dataclass(frozen=True)
class _Shown:
  """N images, and what the network sees in them as they are; N is at least 1."""

  images: Float32[np.ndarray, "N S S 3"]
  sight: transfer.Sight


@dataclasses.dataclass(frozen=True)
class _Attack:
  """The network that patterns are made for, and what they may do."""

  run: Run
  budget: Budget

  @property
  def seed(self) -> int:
    return self.run.config["measure"]["seed"]

  def draw(self, split: Split, wanted: Bool[np.ndarray, " n"], count: int) -> _Shown | None:
    """Up to `count` of the images that are wanted, of those that are classified correctly and whose
    S does not cover the map; None: there is none. Twice as many are looked at."""
    order = np.random.default_rng(self.seed).permutation(np.flatnonzero(wanted))[: 2 * count]
    if not order.size:
      return None
    network, size = self.run.network, rows_of(self.run)
    logits = see(network, split, selectors.logits, batch_size=size, indices=order)
    index = order[logits.argmax(axis=1) == split.label[order]][:count]
    if not index.size:
      return None
    images = batches.to_float(split.pixels[index])
    sight = transfer.sight(network, images, batch_size=size)
    left = np.flatnonzero(~sight.source.all(axis=(1, 2)))
    return _Shown(images[left], sight.of(left)) if left.size else None

  def fit(self, shown: _Shown | None, title: str) -> Float32[np.ndarray, "S S 3"]:
    """The pattern for some images; without any, no change."""
    if shown is None:
      return np.zeros((self.run.image_size, self.run.image_size, 3), np.float32)
    sight, objective = shown.sight, self.run.config["measure"]["attack"]["objective"]
    examples = {
      "image": shown.images,
      "prototypes": sight.prototype.astype(np.int32)[:, None],
      "source": sight.source,
      "target": ~sight.source,
    }
    return universal.fit(
      self.run.network,
      examples,
      self.budget,
      objective=OnMaps(objective_of(objective)),
      seed=self.seed,
      batch_size=rows_of(self.run),
      title=title,
    )

  def moved(
    self, shown: _Shown | None, pattern: Float32[np.ndarray, "S S 3"]
  ) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """On which images the prototype left its S, and the predicted class stayed."""
    if shown is None:
      return np.zeros(0, bool), np.zeros(0, bool)
    images = universal.add(shown.images, pattern)
    views = transfer.looked_at(shown.sight, images, self.budget, batch_size=rows_of(self.run))
    kept = views.logits.argmax(axis=1) == shown.sight.prediction
    return transfer.left(views.similarity_map, shown.sight.source), kept


def measure(run: Run, out: pathlib.Path, *, beside: Beside | None = None) -> dict:
  """Fits and shows the patterns; writes them, and a figure of them."""
  settings = run.config["measure"]["universal"]
  attack = _Attack(run, dataclasses.replace(budget_of(run), num_steps=settings["num_steps"]))
  control = universal.random_pattern(run.image_size, attack.budget.eps, attack.seed)
  order = np.random.default_rng(attack.seed).permutation(len(run.class_names))
  train, test = run.dataset.train, run.dataset.test
  patterns, seen = {}, {}
  for k in (None, *np.sort(order[: settings["num_classes"]]).tolist()):
    name = ALL if k is None else run.class_names[k]
    fitted_on = attack.draw(train, _of_class(train, k), settings["num_training_images"])
    shown = attack.draw(test, _of_class(test, k), settings["num_images"])
    patterns[name] = attack.fit(fitted_on, f"a pattern for {name}")
    moved, kept = attack.moved(shown, patterns[name])
    seen[name] = Seen(
      attack.moved(fitted_on, patterns[name])[0], moved, attack.moved(shown, control)[0], kept
    )
  ensure_folder(out / "figures")
  figure = universal_charts.patterns(patterns, attack.budget.eps)
  canvas.save(figure, out / "figures/universal.png")
  with atomic_path(out / "universal.npz") as temporary, temporary.open("wb") as file:
    np.savez(file, fitted_for=np.array([*patterns]), pattern=np.stack([*patterns.values()]))
  budget = dataclasses.asdict(attack.budget)
  return {"seed": attack.seed, "budget": budget, "patterns": summarise(seen)}


def _of_class(split: Split, k: int | None) -> Bool[np.ndarray, " n"]:
  """Which images are of a class; None: all."""
  return np.ones(len(split), bool) if k is None else split.label == k


def tell(record: Mapping[str, Any], out: pathlib.Path) -> Iterator[str]:
  """What the command prints."""
  yield f"One pattern for many images, eps {255 * record['budget']['eps']:.3g}/255, test images:"
  for row in record["patterns"]:
    moved, control = (tables.format_share(row[name]) for name in ("moved", "control"))
    yield f"  {row['fitted_for']}: moved {moved}; random signs {control}"
  yield f"  figure in {out}/figures/universal.png, patterns in {out}/universal.npz"


def _rows(found: Mapping[str, Any]) -> list[dict]:
  return [
    {"network": NETWORK_NAMES[network], **row}
    for network, record in found.items()
    for row in record["patterns"]
  ]


register(
  Experiment(
    name="universal",
    summary="one pattern of noise that moves the explanations of many images",
    measure=measure,
    record=Universal,
    networks=("standard",),
    settings=("attack", "universal", "seed"),
    flags=(
      count_flag("measure.universal", "num_images", "Test images for each pattern."),
      count_flag(
        "measure.universal",
        "num_training_images",
        "Training images that each pattern is fitted on.",
      ),
      count_flag("measure.universal", "num_classes", "Classes that get a pattern of their own."),
      count_flag("measure.universal", "num_steps", "Steps of each fit."),
      *noise_flags("measure.attack"),
      SEED,
    ),
    tell=tell,
    passages=(
      Passage(
        heading="One pattern for many images",
        caption="A pattern of noise was fitted on training images and then added, the same for "
        "all, to test images. Moved: an image's own top prototype is found more strongly outside "
        "its own S than inside. The control is one pattern of random signs, as large. The picture "
        "shows patterns from -eps (black) over no change (grey) to eps (white), by colour.",
        rows=_rows,
        columns={
          "network": "Network",
          "fitted_for": "Pattern for",
          "moved_fitted": "Moved, images that it was fitted on",
          "moved": "Moved, test images",
          "control": "Random signs",
          "moved_minus_control": "Difference",
          "moved_and_prediction_kept": "Moved, and predicted class kept",
        },
        pictures=(Pictures(network="standard", pattern="universal.png"),),
      ),
    ),
  )
)
