r"""Head on Stomach (Section 3): noise that nobody sees moves where a prototype is found.

  jprotop head-on-stomach --workdir=runs/demo/standard
  jprotop head-on-stomach --workdir=RUN --out=OUT --images=3,17 --target_part=tail
  jprotop head-on-stomach --workdir=RUN --out=OUT --images=bird.jpg --target_cells=1,1:2,2 \
    --eps=4/255 --survive_jpeg=75

--survive_jpeg=75 makes noise that is still there when the picture was saved as a JPEG file of that
quality: what is seen, of clean and attacked images and of the control, is then seen in such files.
They hold the picture that the network takes, so JPEG acts after the resize; the altered images of
Section 4 are made before it.

Without --images it attacks test images that the network classifies correctly, drawn from --seed.
It writes figures, results.json and attack.npz into --out, by default the run's folder, or with
--images a new folder in it, in place of those of an earlier attack there. A prototype is found
where the strongest cell of its map is, which the figures mark.

attack.npz holds, for each of N images: images and attacked [N, S, S, 3]; mask [N, S, S], the pixels
of S_noisy; source and target [N, h, w], the cells S and S_noisy; prototype and image_id [N]; and
for each of clean, attacked and control (random noise of the same size) NAME_similarity_map
[N, h, w] and NAME_logits [N, C].
"""

import dataclasses
import pathlib

import numpy as np

from jprotop import regions
from jprotop.attacks import cases as attack_cases
from jprotop.attacks import perturb
from jprotop.attacks.cases import Cases, Target
from jprotop.data import own_images
from jprotop.errors import InputError
from jprotop.experiments import head_on_stomach_numbers as numbers_of
from jprotop.experiments.attacking import (
  ATTACK_FLAGS,
  IMAGES,
  SEED,
  attacked_example,
  budget_flags,
  budget_of,
  check_pushed,
  count_flag,
  rows_of,
  sample_of,
)
from jprotop.experiments.experiment import (
  Beside,
  Experiment,
  Flag,
  register,
)
from jprotop.experiments.head_on_stomach_numbers import HeadOnStomach
from jprotop.experiments.head_on_stomach_text import PASSAGES, claims, tell
from jprotop.files import atomic_path, ensure_folder
from jprotop.prototypes import selectors
from jprotop.prototypes.see import see
from jprotop.report import canvas, curves, panels
from jprotop.runs.config import PROTOCOLS
from jprotop.runs.run import Run

_NUM_FIGURES = 6


def parse_cells(text: str) -> tuple[tuple[int, int], tuple[int, int]]:
  """ "1,1:2,2" to ((1, 1), (2, 2))."""
  try:
    (top, left), (bottom, right) = (map(int, cell.split(",")) for cell in text.split(":"))
  except ValueError as error:
    raise InputError(
      f"--target_cells={text} is not row,column:row,column, as in --target_cells=1,1:2,2"
    ) from error
  return (top, left), (bottom, right)


def _target(cells: str | None, part: str | None) -> Target:
  if cells and part:
    raise InputError("--target_cells and --target_part exclude each other; give one")
  return Target(cells=parse_cells(cells) if cells else None, part=part)


def measure(
  run: Run,
  out: pathlib.Path,
  *,
  images: str | None = None,
  prototype: int | None = None,
  target_cells: str | None = None,
  target_part: str | None = None,
  beside: Beside | None = None,
) -> dict:
  """Attacks images with a run's network and writes what came of it; returns the record.

  Arguments are the command's flags. The images are as the network was trained on them: altered,
  where those were.
  """
  target = _target(target_cells, target_part)
  check_pushed(run)
  budget, settings = budget_of(run), run.config["measure"]
  ensure_folder(out / "figures")
  chosen, activations, sample = _choose_images(run, images)
  rules = attack_cases.RULES[settings["protocol"]]
  cases, clean = _build_cases(run, chosen, prototype, target, rules, budget.survive_jpeg)
  how = {"seed": settings["seed"], "objective": settings["attack"]["objective"], "clean": clean}
  record = numbers_of.attack(run.network, cases, budget, rules, batch_size=rows_of(run), **how)
  found = {
    "request": {"images": images, "prototype": prototype, **dataclasses.asdict(target)},
    **numbers_of.counts(cases),
    "sample": sample,
    "unreadable": chosen.unreadable,
    "protocol": settings["protocol"],
    "seed": settings["seed"],
    **dataclasses.asdict(budget),
    **_numbers(run, cases, record, activations),
  }
  _write(out, run, cases, record)
  return found


def _choose_images(
  run: Run, images: str | None
) -> tuple[own_images.Images, np.ndarray | None, dict | None]:
  """The images, and, where they are drawn, the activations [N_test, P] of the whole test set, and
  from how many they were drawn."""
  if images is not None:
    return own_images.from_argument(images, run.image_size, lambda: run.seen.test), None, None
  split, settings = run.seen.test, run.config["measure"]
  size = run.config["compute"]["evaluation_batch_size"]
  scores = see(run.network, split, selectors.scores, batch_size=size, title="clean images")
  count, seed = settings["attack"]["num_images"], settings["seed"]
  drawn = attack_cases.draw(split, scores, count, seed=seed)
  return drawn.images, scores["activations"], sample_of(drawn)


def _build_cases(
  run: Run,
  chosen: own_images.Images,
  prototype: int | None,
  target: Target,
  rules: attack_cases.Rules,
  survive_jpeg: int | None,
) -> tuple[Cases, perturb.Views | None]:
  """The prototype of each image, and the cells S and S_noisy; what is seen in the clean images."""
  network, size = run.network.in_files(survive_jpeg), min(rows_of(run), len(chosen))
  # Those that were drawn are seen once more: batches of another size are rounded otherwise.
  seen = see(network, chosen.image, selectors.maps, batch_size=size)
  prototypes = attack_cases.choose_prototypes(
    run.model, seen["logits"], seen["activations"], prototype
  )
  maps = seen["similarity_map"][np.arange(len(chosen)), ..., prototypes]
  cases = attack_cases.build_cases(chosen, prototypes, maps, target, rules)
  if cases.skipped:  # Then they are fewer, perhaps in smaller batches: the same holds for these.
    return cases, None
  return cases, perturb.Views(chosen.image, maps, seen["activations"], seen["logits"])


def _numbers(
  run: Run, cases: Cases, record: dict[str, np.ndarray], activations: np.ndarray | None
) -> dict:
  """All that is counted, and a row an image."""
  is_log = run.model.similarity == "log"
  return {
    **numbers_of.summarise(record, cases.rule, activations=activations, log_similarity=is_log),
    "movements": numbers_of.movements(record, cases),
    "images": numbers_of.per_image(record, cases, run.class_names),
  }


def _write(out: pathlib.Path, run: Run, cases: Cases, record: dict[str, np.ndarray]) -> None:
  with atomic_path(out / "attack.npz") as temporary:
    image_id = np.array(cases.images.image_id)
    np.savez(temporary, allow_pickle=False, image_id=image_id, **record)
  figures = out / "figures"
  # First those that the paper is about, from head to stomach; then in order.
  order = sorted(range(len(cases.rule)), key=lambda i: cases.rule[i] != "stomach")
  moved = regions.peak_inside(record["attacked_similarity_map"], record["target"])
  for number, i in enumerate(order[:_NUM_FIGURES]):
    example = attacked_example(run, cases.images, record, i, moved=bool(moved[i]))
    canvas.save(panels.attacked_image(example), figures / f"head_on_stomach_{number}.png")
  clean, attacked = record["clean_similarity_map"], record["attacked_similarity_map"]
  before, after = (
    {cells: regions.max_over_cells(maps, record[cells]) for cells in ("source", "target")}
    for maps in (clean, attacked)
  )
  figure = curves.similarity_shift(before, after, clean_maximum=clean.max((1, 2)))
  canvas.save(figure, figures / "similarity_shift.png")


register(
  Experiment(
    name="head_on_stomach",
    summary="move where a prototype is found, by noise that nobody sees (Section 3)",
    measure=measure,
    record=HeadOnStomach,
    networks=("standard",),
    passes=lambda measure, *_: (
      4.0 * measure["attack"]["num_images"] * measure["attack"]["num_steps"]
    ),
    settings=("attack", "protocol", "seed"),
    flags=(
      IMAGES,
      count_flag("measure.attack", "num_images", "How many images, where it draws them."),
      Flag(
        name="prototype",
        kind=int,
        help="Prototype to move; default: the most activated of the predicted class.",
      ),
      Flag(
        name="target_cells",
        help="S_noisy as first and last cell, inclusive: row,column:row,column.",
      ),
      Flag(name="target_part", help="S_noisy as a part or group: belly, tail, head."),
      *budget_flags("measure.attack"),
      *ATTACK_FLAGS,
      Flag(
        name="protocol",
        help="Of the method; default: the run's own.",
        setting="measure.protocol",
        choices=PROTOCOLS,
      ),
      SEED,
    ),
    tell=tell,
    passages=PASSAGES,
    claims=claims,
  )
)
