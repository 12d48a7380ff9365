"""Vanishing head: noise on the head alone, so that its prototype is found nowhere any more.

  python -m experiments.vanishing_head --workdir=runs/demo/standard
  python -m experiments.vanishing_head --workdir=RUN --out=OUT --num_images=5 --eps=4/255

The reference code has this attack, the paper has not. It lowers the activation of the predicted
class's most activated prototype, on test images that are classified correctly, by noise inside the
prototype's box of high activation. Figures and results.json go to --out, by default the run's
folder.
"""

import dataclasses
import pathlib

from absl import flags

from experiments import budget, cli
from experiments.head_on_stomach import check_pushed, figure_example
from jprotop.data import own_images
from jprotop.evaluation import attack, attack_cases
from jprotop.evaluation import vanishing_head as experiment
from jprotop.figures import canvas, panels, tables
from jprotop.files import ensure_folder
from jprotop.training.runs import Run

_NUM_FIGURES = 3


def define_flags() -> None:
  """The command's own flags; not at import, for other commands import this file."""
  flags.DEFINE_integer("num_images", None, "How many images; default: the run's config.")
  budget.define_flags()
  cli.define_drawing("the choice of images and of the noise")


def measure(
  run: Run,
  place: pathlib.Path,
  *,
  num_images: int | None = None,
  seed: int = 0,
  **changes: float | int,
) -> dict:
  """Arguments are the command's flags, `changes` those of the budget."""
  check_pushed(run)
  limits, settings = budget.of(run.config, changes), run.config["attack"]
  ensure_folder(place / "figures")
  split, size = run.seen.test, run.config["training"]["evaluation_batch_size"]
  scores = attack.scores(run.model, run.variables, split, batch_size=size)
  count = settings["num_images"] if num_images is None else num_images
  indices = attack_cases.draw_correct(
    scores["logits"], split.label, count, seed=seed, all_if_fewer=num_images is None
  )
  chosen = own_images.from_split(split, indices)
  prototype = attack_cases.choose_prototypes(
    run.model, scores["logits"][indices], scores["activations"][indices], None
  )
  batch_size = min(budget.rows(run), len(chosen))
  clean = attack.find(
    run.model, run.variables, chosen.image, prototype[:, None], batch_size=batch_size
  )
  order, seen = experiment.attack(
    run.model,
    run.variables,
    chosen,
    prototype,
    clean["similarity_maps"][:, 0],
    limits,
    seed=seed,
    batch_size=batch_size,
  )
  log_similarity = run.model.similarity == "log"
  numbers = {
    "num_images": len(chosen),
    "seed": seed,
    **dataclasses.asdict(limits),
    "metrics": experiment.summarise(prototype, seen, log_similarity=log_similarity),
  }
  _write_figures(place, run, chosen, attack.as_record(order, seen))
  _print_summary(place, numbers)
  return {"vanishing_head": numbers}


def _write_figures(place: pathlib.Path, run: Run, chosen: own_images.Images, record: dict) -> None:
  for old in (place / "figures").glob("vanishing_head_*.png"):  # of an attack on more images
    old.unlink()
  for i in range(min(_NUM_FIGURES, len(chosen))):
    figure = panels.head_on_stomach(figure_example(run, chosen, record, i))
    canvas.save(figure, place / f"figures/vanishing_head_{i}.png")


def _print_summary(place: pathlib.Path, numbers: dict) -> None:
  metrics = numbers["metrics"]
  print(f"Vanishing head, {numbers['num_images']} images, eps {numbers['eps'] * 255:.3g}/255:")
  for name, text in (
    ("similarity_before", "similarity of the prototype"),
    ("similarity_after", "  after the attack"),
    ("drop", "  drop"),
    ("control_drop", "  drop by random noise of the same size"),
    ("relative_drop", "drop, as a share of what it was"),
    ("halved", "similarity more than halved"),
    ("no_longer_most_activated", "no longer the most activated one"),
    ("prediction_kept", "predicted class kept"),
  ):
    if name in metrics:
      print(f"  {text:<42} {tables.format_metric(metrics[name])}")
  print(f"  figures in {place}/figures")


def main() -> None:
  given = flags.FLAGS
  cli.measure_run(
    "vanishing_head",
    measure,
    num_images=given.num_images,
    seed=given.seed,
    **budget.given(),
  )


if __name__ == "__main__":
  define_flags()
  cli.run(main)
