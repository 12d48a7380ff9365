"""Vanishing head: noise on the head alone, so that its prototype is found nowhere any more.

  jprotop vanishing-head --workdir=runs/demo/standard
  jprotop vanishing-head --workdir=RUN --out=OUT --num_images=5 --eps=4/255

The reference code's third attack; the paper does not mention it. It lowers the activation of the
predicted class's most activated prototype, on test images that are classified correctly, by noise
inside the prototype's box of high activation. Figures and results.json go to --out, by default the
run's folder.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Bool, Float, Int

from jprotop import parallel, regions, statistics
from jprotop.attacks import cases as attack_cases
from jprotop.attacks import perturb, visibility
from jprotop.attacks.budget import Budget
from jprotop.attacks.perturb import AttackBatch, Views, with_control
from jprotop.data.own_images import Images
from jprotop.experiments.attacking import (
  ATTACK_FLAGS,
  SEED,
  Sample,
  attacked_example,
  budget_flags,
  budget_of,
  check_pushed,
  count_flag,
  rows_of,
  sample_of,
  sample_text,
)
from jprotop.experiments.experiment import (
  Beside,
  Experiment,
  Passage,
  Pictures,
  register,
)
from jprotop.files import ensure_folder
from jprotop.prototypes import selectors
from jprotop.prototypes.see import Network, see
from jprotop.report import canvas, panels, tables
from jprotop.runs.records import Mean, Record, Share
from jprotop.runs.run import Run

_NUM_FIGURES = 3


class Metrics(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
  """The last three are there for logarithmic similarities alone."""

  similarity_before: Mean
  similarity_after: Mean
  drop: Mean
  control_drop: Mean
  no_longer_most_activated: Share
  prediction_kept: Share
  psnr: Mean
  ssim: Mean
  relative_drop: Mean | None = None
  halved: Share | None = None
  control_halved: Share | None = None


class VanishingHead(Record):
  """The attack's settings and its numbers."""

  num_images: int
  sample: Sample
  seed: int
  eps: float
  step_size: float
  num_steps: int
  random_start: bool
  survive_jpeg: int | None
  metrics: Metrics


def measure(run: Run, out: pathlib.Path, *, beside: Beside | None = None) -> dict:
  """Attacks test images of a run; writes figures and returns the record."""
  check_pushed(run)
  budget, settings = budget_of(run), run.config["measure"]
  ensure_folder(out / "figures")
  split, size = run.seen.test, run.config["compute"]["evaluation_batch_size"]
  scores = see(run.network, split, selectors.scores, batch_size=size, title="clean images")
  count, seed = settings["attack"]["num_images"], settings["seed"]
  drawn = attack_cases.draw(split, scores, count, seed=seed)
  chosen = drawn.images
  prototype = attack_cases.choose_prototypes(run.model, drawn.logits, drawn.activations, None)
  batch_size = min(rows_of(run), len(chosen))
  # A second look: batches of another size are rounded otherwise than those of the test set.
  clean = perturb.see_own(run.network, chosen.image, prototype, batch_size=batch_size)
  batch, views = attack(
    run.network, chosen, prototype, clean, budget, seed=seed, batch_size=batch_size
  )
  _write_figures(out / "figures", run, chosen, perturb.as_record(batch, views))
  return {
    "num_images": len(chosen),
    "sample": sample_of(drawn),
    "seed": seed,
    **dataclasses.asdict(budget),
    "metrics": summarise(prototype, views, log_similarity=run.model.similarity == "log"),
  }


def _write_figures(figures: pathlib.Path, run: Run, chosen: Images, record: dict) -> None:
  for i in range(min(_NUM_FIGURES, len(chosen))):
    figure = panels.attacked_image(attacked_example(run, chosen, record, i))
    canvas.save(figure, figures / f"vanishing_head_{i}.png")


def attack(
  network: Network,
  images: Images,
  prototype: Int[np.ndarray, " N"],
  clean: Views,
  budget: Budget,
  *,
  seed: int,
  batch_size: int,
) -> tuple[AttackBatch, dict[str, Views]]:
  """Lowers each image's activation of its prototype, by noise in the box of high activation.

  Args:
    prototype: of each image.
    clean: what the network sees in the clean images; see `perturb.with_control`.

  Returns:
    What was attacked, and what the network sees in the clean, attacked and control images; see
    `perturb.with_control`.
  """
  batch = AttackBatch(
    image=images.image,
    pixels=box_pixels(clean.similarity_map, images.image.shape[1]),
    prototype=prototype,
    key=parallel.key_array(seed, np.arange(len(images))),
  )
  views = with_control(
    network, batch, budget, objective="vanish", batch_size=batch_size, clean=clean
  )
  return batch, views


def box_pixels(maps: Float[np.ndarray, "N h w"], size: int) -> Bool[np.ndarray, "N {size} {size}"]:
  """The pixels of each map's box of high activation, not whole cells."""
  pixels = np.zeros((len(maps), size, size), bool)
  for mask, similarity_map in zip(pixels, maps):
    box = regions.high_activation_box(similarity_map, size, size)
    mask[box.y0 : box.y1, box.x0 : box.x1] = True
  return pixels


def summarise(
  prototype: Int[np.ndarray, " N"], views: dict[str, Views], *, log_similarity: bool = True
) -> dict[str, dict]:
  """The numbers of the attack, each with count and interval.

  Args:
    prototype: which was attacked.
    views: what `attack` returns.
    log_similarity: whether similarities are logarithmic, so positive; the other kind has no
      relative drop and no half.
  """
  rows = np.arange(len(prototype))
  before, after, control = (
    views[name].activations[rows, prototype] for name in ("clean", "attacked", "control")
  )
  top_before, top_after = (
    views[name].activations.argmax(axis=1) == prototype for name in ("clean", "attacked")
  )
  predicted = {name: views[name].logits.argmax(axis=1) for name in ("clean", "attacked")}
  numbers = {
    "similarity_before": statistics.mean(before),
    "similarity_after": statistics.mean(after),
    "drop": statistics.mean(before - after),
    "control_drop": statistics.mean(before - control),
    # Only where it was the image's most activated prototype at first.
    "no_longer_most_activated": statistics.share(~top_after[top_before]),
    "prediction_kept": statistics.share(predicted["attacked"] == predicted["clean"]),
  }
  numbers |= visibility.summarise(views["clean"].image, views["attacked"].image)
  if log_similarity:
    numbers["relative_drop"] = statistics.mean((before - after) / before)
    numbers["halved"] = statistics.share(after < before / 2)
    numbers["control_halved"] = statistics.share(control < before / 2)
  return numbers


# What each number means, in the order of reading.
MEANINGS = {
  "similarity_before": "similarity of the prototype",
  "similarity_after": "  after the attack",
  "drop": "  drop",
  "control_drop": "  drop by random noise of the same size",
  "relative_drop": "drop, as a share of what it was",
  "halved": "similarity more than halved",
  "control_halved": "  by random noise of the same size",
  "no_longer_most_activated": "no longer the most activated one",
  "prediction_kept": "predicted class kept",
  "psnr": "peak signal-to-noise ratio, in dB",
  "ssim": "structural similarity with the clean image",
}


def tell(record: Mapping[str, Any], out: pathlib.Path) -> Iterator[str]:
  """What the command prints."""
  yield f"Vanishing head, {record['num_images']} images, eps {record['eps'] * 255:.3g}/255:"
  yield f"  {sample_text(record['sample'])}"
  for name, text in MEANINGS.items():
    if name in record["metrics"]:
      yield f"  {text:<42} {tables.format_metric(record['metrics'][name])}"
  yield f"  figures in {out}/figures"


def _rows(found: Mapping[str, Any]) -> list[dict]:
  rows = []
  for record in found.values():
    rows.append({"what": "Images", "value": sample_text(record["sample"])})
    rows += [
      {"what": _sentence(text), "value": record["metrics"][name]}
      for name, text in MEANINGS.items()
      if name in record["metrics"]
    ]
  return rows


def _sentence(text: str) -> str:
  return text.strip()[0].upper() + text.strip()[1:]


register(
  Experiment(
    name="vanishing_head",
    summary="make a prototype vanish from where it is found (the reference code's third attack)",
    measure=measure,
    record=VanishingHead,
    networks=("standard",),
    passes=lambda measure, *_: (
      4.0 * measure["attack"]["num_images"] * measure["attack"]["num_steps"]
    ),
    settings=("attack", "seed"),
    flags=(
      count_flag("measure.attack", "num_images", "How many images."),
      *budget_flags("measure.attack"),
      *ATTACK_FLAGS,
      SEED,
    ),
    tell=tell,
    passages=(
      Passage(
        heading="Making the head disappear",
        caption="The reference code's third attack, not in the paper: noise inside the prototype's "
        "own box that lowers its similarity on the image, with random noise as control. What "
        "counts is the strongest cell of the map, marked by a white cross, wherever it is: compare "
        "the similarities, not the yellow boxes.",
        rows=_rows,
        columns={"what": "What", "value": "Value"},
        pictures=(Pictures(network="standard", pattern="vanishing_head_*.png", most=2),),
      ),
    ),
  )
)
