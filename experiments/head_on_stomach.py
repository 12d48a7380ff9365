"""Head on Stomach (Section 3): noise that moves where a prototype is found.

  python -m experiments.head_on_stomach --workdir=runs/demo
  python -m experiments.head_on_stomach --workdir=runs/demo --out=runs/tail --images=3,17 \
    --target_part=tail
  python -m experiments.head_on_stomach --workdir=runs/demo --out=runs/mine --images=bird.jpg \
    --target_cells=1,1:2,2 --eps=4/255

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

import jprotop
from experiments import cli
from jprotop import regions
from jprotop.data import own_images
from jprotop.data.batches import to_float
from jprotop.data.dataset import Dataset
from jprotop.errors import InputError
from jprotop.evaluation import accuracy, attack_cases, results
from jprotop.evaluation import head_on_stomach as experiment
from jprotop.figures import canvas, curves, panels, tables
from jprotop.files import atomic_path, ensure_folder
from jprotop.training import runs

_NUM_FIGURES = 6


class _Fraction(flags.ArgumentParser):
  """A flag's number, written 0.0314 or 8/255."""

  def parse(self, argument) -> float:
    numerator, _, denominator = str(argument).partition("/")
    return float(numerator) / float(denominator or 1)


def define_flags() -> None:
  """The command's own flags; not at import, for other commands import this file."""
  flags.DEFINE_string(
    "images",
    None,
    "Test-set indices (3,17), image files or a folder (used whole: crop them as the network's "
    "training images were), or a float32 .npy [N, S, S, 3] in [0, 1].",
  )
  flags.DEFINE_integer("num_images", None, "How many images, where it chooses them.", lower_bound=1)
  flags.DEFINE_integer(
    "prototype", None, "Prototype to move; default: the most activated of the predicted class."
  )
  flags.DEFINE_string(
    "target_cells", None, "S_noisy as first and last cell, inclusive: row,column:row,column."
  )
  flags.DEFINE_string("target_part", None, "S_noisy as a part or group: belly, tail, head.")
  for name, text in (
    ("eps", "Largest change of a pixel value, in units of [0, 1]; paper: 8/255."),
    ("step_size", "Step in units of [0, 1]; paper: 2/255."),
  ):
    flags.DEFINE(_Fraction(), name, None, text, serializer=flags.ArgumentSerializer())
  flags.DEFINE_integer("num_steps", None, "Gradient steps; paper: 40.")
  flags.DEFINE_boolean("random_start", True, "Start from noise U(-eps, eps).")
  flags.DEFINE_integer("seed", 0, "Of the choice of images and of the noise.", lower_bound=0)
  flags.DEFINE_enum("protocol", None, list(attack_cases.RULES), "Default: the run's own.")
  flags.DEFINE_string("out", None, "Folder for what it writes; default: the run's own.")


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


def correct_images(
  model, variables, dataset: Dataset, config: dict, count: int, seed: int
) -> np.ndarray:
  """Indices of `count` correctly classified test images, drawn from a seed, in order."""
  size = config["training"]["evaluation_batch_size"]
  scores = accuracy.predict(model, variables, dataset.test, batch_size=size)
  correct = np.flatnonzero(scores.argmax(axis=1) == dataset.test.label)
  if not correct.size:
    raise InputError("this network classifies no test image correctly; train it for longer")
  return np.sort(np.random.default_rng(seed).permutation(correct)[:count])


def attack_run(
  workdir: pathlib.Path,
  dataset: Dataset | None = None,
  *,
  images: str | None = None,
  num_images: int | None = None,
  prototype: int | None = None,
  target: attack_cases.Target | None = None,
  protocol: str | None = None,
  seed: int = 0,
  random_start: bool = True,
  out: str | None = None,
  **budget: float | int,
) -> dict:
  """Attacks images with a run's network and writes what came of it; returns the numbers.

  Arguments are the command's flags; `out` is where results go, by default the run's folder.
  """
  model, variables, info = jprotop.load(str(workdir))
  config, classes = info["config"], info["class_names"]
  settings = config["attack"]
  if info["provenance"] is None:
    raise InputError(f"{workdir} has no pushed prototypes yet; run experiments.train to its end")
  budget = {name: budget.get(name, settings[name]) for name in ("eps", "step_size", "num_steps")}
  protocol = protocol or config["protocol"]
  rules = attack_cases.RULES[protocol]
  place = pathlib.Path(out) if out else workdir
  ensure_folder(place / "figures")
  dataset, target = runs.dataset_of(info, dataset), target or attack_cases.Target()
  if images is None:
    count = num_images if num_images is not None else settings["num_images"]
    chosen = own_images.from_split(
      dataset.test, correct_images(model, variables, dataset, config, count, seed)
    )
  else:
    chosen = own_images.from_argument(images, dataset.test)
  seen = experiment.look(model, variables, chosen, settings["batch_size"])
  prototypes = attack_cases.choose_prototypes(model, seen["logits"], seen["activations"], prototype)
  maps = seen["similarity_map"][np.arange(len(chosen)), ..., prototypes]
  cases = attack_cases.build_cases(chosen, prototypes, maps, target, rules)
  record = experiment.attack(
    model,
    variables,
    cases,
    experiment.Budget(**budget, random_start=random_start),
    rules,
    seed=seed,
    batch_size=settings["batch_size"],
  )
  numbers = {
    "request": {"images": images, "prototype": prototype, **dataclasses.asdict(target)},
    "num_images": len(cases.images),
    "not_attacked": cases.skipped,
    "num_overlapping": int((cases.source & cases.target).any(axis=(1, 2)).sum()),
    "unreadable": chosen.unreadable,
    "protocol": protocol,
    "seed": seed,
    "random_start": random_start,
    **budget,
    **experiment.summarise(record, cases.rule),
    "images": experiment.per_image(record, cases, classes),
  }
  with atomic_path(place / "attack.npz") as temporary:
    np.savez(temporary, image_id=np.array(cases.images.image_id), **record)
  _write_figures(place, model, dataset, info, cases, record)
  results.update_results(place, config, "head_on_stomach", head_on_stomach=numbers)
  _print_summary(place, numbers)
  return numbers


def _write_figures(place: pathlib.Path, model, dataset, info, cases, record) -> None:
  # First those that the paper is about, from head to stomach; then in order.
  order = sorted(range(len(cases.rule)), key=lambda i: cases.rule[i] != "stomach")
  for number, i in enumerate(order[:_NUM_FIGURES]):
    figure = panels.head_on_stomach(_example(model, dataset, info, cases, record, i))
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


def _example(model, dataset, info, cases, record, i: int) -> panels.HeadOnStomachExample:
  size, prototype = cases.images.image.shape[1], int(cases.prototype[i])
  classes, provenance = info["class_names"], info["provenance"]
  clean, attacked = record["clean_similarity_map"][i], record["attacked_similarity_map"][i]
  label = int(cases.images.label[i])
  return panels.HeadOnStomachExample(
    source_image=to_float(dataset.train.pixels[provenance["image"][prototype]]),
    source_box=regions.Box(*provenance["box"][prototype].tolist()),
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
    prototype_class=classes[model.prototype_class[prototype]],
    true_class=classes[label] if label >= 0 else "not known",
    predicted_before=classes[int(record["clean_logits"][i].argmax())],
    predicted_after=classes[int(record["attacked_logits"][i].argmax())],
    image_id=cases.images.image_id[i],
    moved=bool(experiment.peak_inside(attacked[None], record["target"][i : i + 1])[0]),
  )


def _print_summary(place: pathlib.Path, numbers: dict) -> None:
  metrics = numbers["metrics"]
  print(f"Head on Stomach, {numbers['num_images']} images, eps {numbers['eps'] * 255:.3g}/255:")
  for name, text in (
    ("moved_to_target", "prototype now found in S_noisy"),
    ("control_moved", "  after random noise of the same size"),
    ("exceeds_clean_maximum", "scores in S_noisy above its clean maximum"),
    ("prediction_kept", "predicted class kept"),
  ):
    print(f"  {text:<42} {tables.format_share(metrics[name])}")
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
  budget = {name: given[name].value for name in ("eps", "step_size", "num_steps")}
  attack_run(
    cli.workdir(must_exist=True),
    images=given.images,
    num_images=given.num_images,
    prototype=given.prototype,
    target=attack_cases.Target(cells=cells, part=given.target_part),
    protocol=given.protocol,
    seed=given.seed,
    random_start=given.random_start,
    out=given.out,
    **{name: value for name, value in budget.items() if value is not None},
  )


if __name__ == "__main__":
  define_flags()
  cli.run(main)
