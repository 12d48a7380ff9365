"""What the experiments that attack have in common: their budget, their flags, their figure."""

from collections.abc import Mapping

import msgspec
import numpy as np
from jaxtyping import Float

from jprotop import regions
from jprotop.attacks.budget import Budget
from jprotop.attacks.cases import Drawn
from jprotop.attacks.perturb import rows_that_fit
from jprotop.data.own_images import Images
from jprotop.errors import InputError
from jprotop.experiments.experiment import Flag
from jprotop.report import panels
from jprotop.report.page import View
from jprotop.runs.run import Run

SEED = Flag(
  name="seed",
  kind=int,
  help="Of the choice of images and of the noise.",
  setting="measure.seed",
  least=0,
)

IMAGES = Flag(
  name="images",
  help="Test-set indices (3,17), image files or a folder (used whole: crop them as the network's "
  "training images were), or a float32 .npy [N, S, S, 3] in [0, 1].",
  apart=True,
)
ATTACK_FLAGS = (
  Flag(
    name="random_start",
    kind=bool,
    help="Start from noise U(-eps, eps).",
    setting="measure.attack.random_start",
  ),
  Flag(
    name="survive_jpeg",
    kind=int,
    help="Quality of a JPEG file that every picture must pass before it is seen; 0: none.",
    setting="measure.attack.survive_jpeg",
  ),
)


def count_flag(section: str, name: str, text: str, least: int | None = 1) -> Flag:
  """A flag of a whole number that a config section has by the same name."""
  return Flag(name=name, kind=int, help=text, setting=f"{section}.{name}", least=least)


def budget_flags(section: str) -> tuple[Flag, ...]:
  """--eps, --step_size and --num_steps of an attack whose numbers are in a config section."""
  return (
    *noise_flags(section),
    count_flag(section, "num_steps", "Gradient steps of the attack.", least=None),
  )


def noise_flags(section: str) -> tuple[Flag, ...]:
  """--eps and --step_size alone, where the steps are counted elsewhere."""
  return (
    Flag(
      name="eps",
      kind=float,
      help="Largest change of a pixel value, in units of [0, 1]; paper: 8/255.",
      setting=f"{section}.eps",
    ),
    Flag(
      name="step_size",
      kind=float,
      help="Step in units of [0, 1]; paper: 2/255.",
      setting=f"{section}.step_size",
    ),
  )


class Sample(msgspec.Struct, forbid_unknown_fields=True):
  """How many test images were asked for, there are, are classified correctly, by as many networks
  as say so, and were taken."""

  asked: int
  available: int
  correct: int
  networks: int
  taken: int


def sample_of(drawn: Drawn, *, networks: int = 1) -> dict[str, int]:
  """A `Sample`, as a record holds it."""
  return {
    "asked": drawn.asked,
    "available": drawn.available,
    "correct": drawn.correct,
    "networks": networks,
    "taken": len(drawn.images),
  }


def sample_text(sample: Mapping[str, int]) -> str:
  """ "18 test images, 9 classified correctly, 9 taken (200 asked for)"."""
  networks = sample["networks"]
  by = {1: "", 2: " by both networks"}.get(networks, f" by all {networks} networks")
  text = f"{sample['available']} test images, {sample['correct']} classified correctly{by}, "
  fewer = sample["taken"] < sample["asked"]
  return f"{text}{sample['taken']} taken" + (f" ({sample['asked']} asked for)" if fewer else "")


def budget_of(run: Run) -> Budget:
  """What the config of a run lets an attack do.

  Raises:
    InputError: a number that makes no sense.
  """
  settings = run.config["measure"]["attack"]
  return Budget(
    eps=settings["eps"],
    step_size=settings["step_size"],
    num_steps=settings["num_steps"],
    random_start=settings["random_start"],
    survive_jpeg=settings["survive_jpeg"] or None,
  )


def rows_of(run: Run) -> int:
  """Images to attack at once: compute.attack_batch_size, or what the devices hold."""
  return run.config["compute"]["attack_batch_size"] or rows_that_fit(run.model, run.image_size)


def check_pushed(run: Run) -> None:
  """Raises InputError where the prototypes are not those of training images yet.

  Of a network that was imported they are, though it may not be known which.
  """
  if run.provenance is None and not run.imported:
    raise InputError(f"{run.workdir} has no pushed prototypes yet; run jprotop train to its end")


def source_of(run: Run, prototype: int) -> panels.Prototype:
  """A prototype as the figures show it, with the training image that it comes from if known."""
  return panels.Prototype(
    prototype_id=prototype,
    prototype_class=run.class_names[run.model.prototype_class[prototype]],
    source=run.source(prototype),
  )


def view_of(
  run: Run,
  image: Float[np.ndarray, "S S 3"],
  similarity_map: Float[np.ndarray, "h w"],
  logits: Float[np.ndarray, " C"],
) -> View:
  """One version of an image, and where a prototype's map finds it there."""
  size = image.shape[0]
  return View(
    image=image,
    map_up=regions.upsample(similarity_map, size, size),
    box=regions.high_activation_box(similarity_map, size, size),
    peak=regions.peak_box(similarity_map, size, size),
    similarity=float(similarity_map.max()),
    predicted=run.class_names[int(logits.argmax())],
  )


def attacked_example(
  run: Run, images: Images, record: dict[str, np.ndarray], i: int, *, moved: bool | None = None
) -> panels.AttackedExample:
  """What Figure 1 shows of the i-th image of a record as `perturb.as_record` makes it."""
  label = int(images.label[i])
  clean, attacked = (
    view_of(run, record[image][i], record[f"{name}_similarity_map"][i], record[f"{name}_logits"][i])
    for name, image in (("clean", "images"), ("attacked", "attacked"))
  )
  return panels.AttackedExample(
    prototype=source_of(run, int(record["prototype"][i])),
    clean=clean,
    attacked=attacked,
    noise_mask=record["mask"][i],
    true_class=run.class_names[label] if label >= 0 else "not known",
    image_id=images.image_id[i],
    moved=moved,
  )
