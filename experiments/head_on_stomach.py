"""Head on Stomach (Section 3): noise that moves where a prototype is found.

  python -m experiments.head_on_stomach --workdir=runs/demo/standard
  python -m experiments.head_on_stomach --workdir=RUN --out=OUT --images=3,17 --target_part=tail
  python -m experiments.head_on_stomach --workdir=RUN --out=OUT --images=bird.jpg \
    --target_cells=1,1:2,2 --eps=4/255 --survive_jpeg=75

--survive_jpeg=75 makes noise that is still there when the picture was saved as a JPEG file of that
quality: what is seen, of clean and attacked images and of the control, is then seen in such files.
They hold the picture that the network takes, so JPEG acts after the resize; the files of the JPEG
experiment are made before it.

Without --images it attacks test images that the network classifies correctly, drawn from --seed.
It writes figures, results.json and attack.npz into --out, by default the run's folder, in place of
those of an earlier attack there. attack.npz holds, for each
of N images: images and attacked [N, S, S, 3]; mask [N, S, S], the pixels of S_noisy; source and
target [N, h, w], the cells S and S_noisy; prototype and image_id [N]; and for each of clean,
attacked and control (random noise of the same size) NAME_similarity_map [N, h, w] and NAME_logits
[N, C].
"""

import dataclasses
import pathlib

import numpy as np
from absl import flags

from experiments import budget, cli
from jprotop import regions
from jprotop.data import own_images
from jprotop.errors import InputError
from jprotop.evaluation import attack, attack_cases
from jprotop.evaluation import head_on_stomach as experiment
from jprotop.figures import canvas, curves, panels, tables
from jprotop.files import atomic_path, ensure_folder
from jprotop.training.runs import Run

_NUM_FIGURES = 6


def define_flags() -> None:
  """The command's own flags; not at import, for other commands import this file."""
  cli.define_images()
  flags.DEFINE_integer("num_images", None, "How many images, where it chooses them.", lower_bound=1)
  flags.DEFINE_integer(
    "prototype", None, "Prototype to move; default: the most activated of the predicted class."
  )
  flags.DEFINE_string(
    "target_cells", None, "S_noisy as first and last cell, inclusive: row,column:row,column."
  )
  flags.DEFINE_string("target_part", None, "S_noisy as a part or group: belly, tail, head.")
  budget.define_flags()
  flags.DEFINE_boolean("random_start", True, "Start from noise U(-eps, eps).")
  flags.DEFINE_integer(
    "survive_jpeg", None, "Quality of a JPEG file that every picture must pass before it is seen."
  )
  flags.DEFINE_enum("protocol", None, list(attack_cases.RULES), "Default: the run's own.")
  cli.define_drawing("the choice of images and of the noise")


def parse_cells(text: str) -> tuple[tuple[int, int], tuple[int, int]]:
  """ "1,1:2,2" to ((1, 1), (2, 2))."""
  try:
    first, last = (tuple(int(v) for v in cell.split(",")) for cell in text.split(":"))
    (_, _), (_, _) = first, last
  except ValueError as error:
    raise InputError(
      f"--target_cells={text} is not row,column:row,column, as in --target_cells=1,1:2,2"
    ) from error
  return first, last


def measure(
  run: Run,
  place: pathlib.Path,
  *,
  images: str | None = None,
  num_images: int | None = None,
  prototype: int | None = None,
  target: attack_cases.Target | None = None,
  protocol: str | None = None,
  seed: int = 0,
  **changes: float | int | None,
) -> dict:
  """Attacks images with a run's network and writes what came of it; returns the numbers.

  Arguments are the command's flags, `changes` those of the budget. The images are as the network
  was trained on them: with JPEG artefacts, where those were.
  """
  check_pushed(run)
  limits = budget.of(run.config, changes)
  protocol, target = protocol or run.config["protocol"], target or attack_cases.Target()
  ensure_folder(place / "figures")
  chosen, activations = _choose_images(run, images, num_images, seed)
  rules = attack_cases.RULES[protocol]
  cases = _build_cases(run, chosen, prototype, target, rules, limits.survive_jpeg)
  record = experiment.attack(
    run.model,
    run.variables,
    cases,
    limits,
    rules,
    seed=seed,
    batch_size=budget.rows(run),
  )
  log_similarity = run.model.similarity == "log"
  numbers = {
    "request": {"images": images, "prototype": prototype, **dataclasses.asdict(target)},
    "num_images": len(cases.images),
    "not_attacked": cases.skipped,
    "num_overlapping": int((cases.source & cases.target).any(axis=(1, 2)).sum()),
    "unreadable": chosen.unreadable,
    "protocol": protocol,
    "seed": seed,
    **dataclasses.asdict(limits),
    **experiment.summarise(
      record, cases.rule, activations=activations, log_similarity=log_similarity
    ),
    "images": experiment.per_image(record, cases, run.class_names),
  }
  with atomic_path(place / "attack.npz") as temporary:
    np.savez(temporary, image_id=np.array(cases.images.image_id), **record)
  _write_figures(place, run, cases, record)
  _print_summary(place, numbers)
  return {"head_on_stomach": numbers}


def check_pushed(run: Run) -> None:
  """Raises InputError where the prototypes are not those of training images yet.

  Of a network that was imported they are, though it may not be known which.
  """
  if run.provenance is None and not run.imported:
    raise InputError(
      f"{run.workdir} has no pushed prototypes yet; run experiments.train to its end"
    )


def _choose_images(
  run: Run, images: str | None, num_images: int | None, seed: int
) -> tuple[own_images.Images, np.ndarray | None]:
  """The images, and, where they are drawn, the activations [N_test, P] of the whole test set."""
  if images is not None:
    return own_images.from_argument(images, run.image_size, lambda: run.seen.test), None
  split = run.seen.test
  size = run.config["training"]["evaluation_batch_size"]
  scores = attack.scores(run.model, run.variables, split, batch_size=size)
  count = run.config["attack"]["num_images"] if num_images is None else num_images
  indices = attack_cases.draw_correct(
    scores["logits"], split.label, count, seed=seed, all_if_fewer=num_images is None
  )
  return own_images.from_split(split, indices), scores["activations"]


def _build_cases(
  run: Run,
  chosen: own_images.Images,
  prototype: int | None,
  target: attack_cases.Target,
  rules: attack_cases.Rules,
  survive_jpeg: int | None,
) -> attack_cases.Cases:
  """The prototype of each image, and the cells S and S_noisy."""
  seen = experiment.look(run.model, run.variables, chosen, budget.rows(run), survive_jpeg)
  prototypes = attack_cases.choose_prototypes(
    run.model, seen["logits"], seen["activations"], prototype
  )
  maps = seen["similarity_map"][np.arange(len(chosen)), ..., prototypes]
  return attack_cases.build_cases(chosen, prototypes, maps, target, rules)


def _write_figures(
  place: pathlib.Path, run: Run, cases: attack_cases.Cases, record: dict[str, np.ndarray]
) -> None:
  # First those that the paper is about, from head to stomach; then in order.
  order = sorted(range(len(cases.rule)), key=lambda i: cases.rule[i] != "stomach")
  for number, i in enumerate(order[:_NUM_FIGURES]):
    target = record["target"][i : i + 1]
    moved = experiment.peak_inside(record["attacked_similarity_map"][i : i + 1], target)
    example = figure_example(run, cases.images, record, i, moved=bool(moved[0]))
    figure = panels.head_on_stomach(example)
    canvas.save(figure, place / f"figures/head_on_stomach_{number}.png")
  for number in range(len(order), _NUM_FIGURES):  # of an earlier attack on more images
    (place / f"figures/head_on_stomach_{number}.png").unlink(missing_ok=True)
  clean, attacked = record["clean_similarity_map"], record["attacked_similarity_map"]
  before, after = (
    {cells: experiment.highest(maps, record[cells]) for cells in ("source", "target")}
    for maps in (clean, attacked)
  )
  figure = curves.similarity_shift(before, after, clean_maximum=clean.max((1, 2)))
  canvas.save(figure, place / "figures/similarity_shift.png")


def figure_example(
  run: Run,
  images: own_images.Images,
  record: dict[str, np.ndarray],
  i: int,
  *,
  moved: bool | None = None,
) -> panels.HeadOnStomachExample:
  """What Figure 1 shows of the i-th image of a record as `attack.as_record` makes it."""
  size, prototype = images.image.shape[1], int(record["prototype"][i])
  classes, label = run.class_names, int(images.label[i])
  source_image, source_box = run.source(prototype)
  clean, attacked = record["clean_similarity_map"][i], record["attacked_similarity_map"][i]
  return panels.HeadOnStomachExample(
    source_image=source_image,
    source_box=source_box,
    image=record["images"][i],
    attacked=record["attacked"][i],
    clean_map_up=regions.upsample(clean, size, size),
    attacked_map_up=regions.upsample(attacked, size, size),
    clean_box=regions.high_activation_box(clean, size, size),
    attacked_box=regions.high_activation_box(attacked, size, size),
    noise_mask=record["mask"][i],
    clean_similarity=float(clean.max()),
    attacked_similarity=float(attacked.max()),
    prototype_id=prototype,
    prototype_class=classes[run.model.prototype_class[prototype]],
    true_class=classes[label] if label >= 0 else "not known",
    predicted_before=classes[int(record["clean_logits"][i].argmax())],
    predicted_after=classes[int(record["attacked_logits"][i].argmax())],
    image_id=images.image_id[i],
    moved=moved,
  )


def _print_summary(place: pathlib.Path, numbers: dict) -> None:
  metrics = numbers["metrics"]
  print(f"Head on Stomach, {numbers['num_images']} images, eps {numbers['eps'] * 255:.3g}/255:")
  if quality := numbers["survive_jpeg"]:
    print(f"  all is seen in JPEG files of quality {quality}, made after the resize")
  for name, text in (
    ("moved_to_target", "prototype now found in S_noisy"),
    ("control_moved", "  after random noise of the same size"),
    ("exceeds_clean_maximum", "scores in S_noisy above its clean maximum"),
    ("exceeds_clean_maximum_by", "  by, on average"),
    ("prediction_kept", "predicted class kept"),
    ("percentile_of_attacked", "share of clean similarities below that score"),
    ("percentile_of_4", "share of clean similarities below 4"),
  ):
    if name in metrics:
      print(f"  {text:<44} {tables.format_metric(metrics[name])}")
  for message in [f"{s['image_id']}: {s['reason']}" for s in numbers["not_attacked"]]:
    print(f"  not attacked: {message}")
  for message in numbers["unreadable"]:
    print(f"  not read: {message}")
  if overlapping := numbers["num_overlapping"]:
    print(f"  on {overlapping} images S_noisy and S share cells: being found there is no surprise")
  print(f"  figures in {place}/figures, arrays in {place}/attack.npz")


def main() -> None:
  given = flags.FLAGS
  if given.target_cells and given.target_part:
    raise InputError("--target_cells and --target_part exclude each other; give one")
  cells = parse_cells(given.target_cells) if given.target_cells else None
  cli.measure_run(
    "head_on_stomach",
    measure,
    images=given.images,
    num_images=given.num_images,
    prototype=given.prototype,
    target=attack_cases.Target(cells=cells, part=given.target_part),
    protocol=given.protocol,
    seed=given.seed,
    random_start=given.random_start,
    survive_jpeg=given.survive_jpeg,
    **budget.given(),
  )


if __name__ == "__main__":
  define_flags()
  cli.run(main)
