"""Why a network decides as it does: its prototypes in an image, and what each prototype stands for.

  python -m experiments.explain --workdir=runs/demo/standard --images=3,17
  python -m experiments.explain --workdir=RUN --images=bird.jpg --num_prototypes=5 --out=OUT
  python -m experiments.explain --workdir=RUN --global --prototypes=0,3,5 --nearest=5
  python -m experiments.explain --workdir=RUN --ensemble=RUN2,RUN3

Without --images it explains test images drawn from --seed. --global also looks for the nearest
patches of each prototype in the training and test images, of each image its nearest one.

All goes to --out, by default the run's folder: figures, explain.json and nearest.json to read,
a summary into results.json, and
  explain.npz, for N images: image_id [N]; logits [N, C]; activations [N, P]; sq_dist and
    similarity_map [N, h, w, P]; top_prototypes [N, K] by activation, and their boxes [N, K, 4]
    (y0, y1, x0, x1) in pixels; with --ensemble also ensemble_logits [N, C];
  nearest.npz, for Q prototypes: prototypes [Q]; and for NAME in train and test, nearest first,
    NAME_image and NAME_label [Q, K], NAME_cell [Q, K, 2] (row, column), NAME_sq_dist [Q, K] and
    NAME_box [Q, K, 4].
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from absl import flags

from experiments import cli, explain_pages
from jprotop import explain
from jprotop.data import own_images
from jprotop.data.own_images import Images
from jprotop.errors import InputError
from jprotop.evaluation import accuracy
from jprotop.figures import tables
from jprotop.files import atomic_path, ensure_folder, write_json
from jprotop.training import runs
from jprotop.training.runs import Run

_NEAREST = 5


def define_flags() -> None:
  """The command's own flags; not at import, for other commands import this file."""
  cli.define_images()
  flags.DEFINE_integer("num_images", 3, "How many images, where it draws them.", lower_bound=1)
  flags.DEFINE_integer("num_prototypes", None, "Most activated prototypes shown; default: 10.")
  flags.DEFINE_integer("num_classes", None, "Highest classes of which all is told; default: 3.")
  flags.DEFINE_boolean("global", False, "Also find the nearest patches of prototypes.")
  flags.DEFINE_integer("nearest", None, f"How many; default: {_NEAREST}. Implies --global.")
  flags.DEFINE_list("prototypes", None, "Of these alone (0,3,5); implies --global.")
  flags.DEFINE_list("ensemble", [], "Other runs on the same data, whose logits are added.")
  cli.define_drawing("the choice of images")


def measure(
  run: Run,
  place: pathlib.Path,
  *,
  images: str | None = None,
  num_images: int = 3,
  num_prototypes: int | None = None,
  num_classes: int | None = None,
  nearest: int | None = _NEAREST,
  prototypes: Sequence[int] | None = None,
  num_pages: int | None = None,
  ensemble: Sequence[Run] = (),
  seed: int = 0,
) -> dict:
  """Arguments are the command's flags; `nearest` None leaves the global analysis out.

  Args:
    num_pages: how many classes' nearest patches are drawn; None: all.

  Raises:
    InputError: a prototype, an image or a number that there is not, or other data in the ensemble.
  """
  available = len(run.model.prototype_class)
  top = min(10, available) if num_prototypes is None else num_prototypes
  classes = min(3, len(run.class_names)) if num_classes is None else num_classes
  wanted = range(available) if prototypes is None else prototypes
  _check_request(run, top, classes)
  for member in ensemble:
    _check_member(run, member)
  splits = () if nearest is None else (run.seen.train, run.seen.test)
  for split in splits:
    explain.check_prototypes(wanted, available)
    explain.check_neighbours(nearest, split)
  choose = functools.partial(choose_images, run, images=images, num_images=num_images, seed=seed)
  chosen = choose(run.image_size)
  ensure_folder(place / "figures")
  size = run.config["training"]["evaluation_batch_size"]
  look = functools.partial(explain.local_analysis, batch_size=size)
  record = look(run.model, run.variables, chosen.image, num_prototypes=top)
  if ensemble:
    record["ensemble_logits"] = _ensemble_logits(ensemble, record["logits"], choose, look)
  told = [explain_pages.tell_image(run, chosen, record, i, classes) for i in range(len(chosen))]
  _save_arrays(place / "explain.npz", image_id=np.array(chosen.image_id), **record)
  write_json(place / "explain.json", {"images": told, "unreadable": chosen.unreadable})
  explain_pages.draw_images(place / "figures", run, chosen, record, told)
  _print_images(place, told, chosen)
  summary = {"num_images": len(chosen), "num_prototypes": top}
  if nearest is not None:
    found = {
      split.name: explain.nearest_patches(
        run.model, run.variables, split, wanted, k=nearest, batch_size=size
      )
      for split in splits
    }
    purity = _write_nearest(place, run, np.array(wanted), found, num_pages)
    summary |= {"nearest": nearest, **purity}
  return {"explain": summary}


def _check_request(run: Run, num_prototypes: int, num_classes: int) -> None:
  explain.check_num_prototypes(num_prototypes, len(run.model.prototype_class))
  if not 1 <= num_classes <= len(run.class_names):
    raise InputError(
      f"num_classes={num_classes} must be 1 to {len(run.class_names)}, the classes of this network"
    )


def _check_member(run: Run, member: Run) -> None:
  if (member.info["data"], member.class_names) != (run.info["data"], run.class_names):
    raise InputError(
      f"--ensemble: {member.workdir} was trained on other images or classes than {run.workdir}; "
      "take runs on the same data set"
    )


def choose_images(
  run: Run, image_size: int, *, images: str | None, num_images: int, seed: int
) -> Images:
  """What `--images` names, or test images drawn from a seed; `image_size` S is in pixels."""
  test = lambda: dataclasses.replace(run.seen.test, image_size=image_size)  # noqa: E731
  if images is not None:
    return own_images.from_argument(images, image_size, test)
  drawn = np.random.default_rng([seed, 8]).permutation(len(test()))[:num_images]
  return own_images.from_split(test(), np.sort(drawn))


def _ensemble_logits(
  ensemble: Sequence[Run], own: np.ndarray, choose: Callable, look: Callable
) -> np.ndarray:
  """Summed logits [N, C]; each network gets the same images, at its own size."""
  scores = [own]
  for member in ensemble:
    images = choose(member.image_size).image
    scores.append(look(member.model, member.variables, images, num_prototypes=1)["logits"])
  return accuracy.sum_logits(scores)


def _save_arrays(path: pathlib.Path, **arrays: np.ndarray) -> None:
  with atomic_path(path) as temporary:
    np.savez(temporary, **arrays)


def _print_images(place: pathlib.Path, told: list[dict], chosen: Images) -> None:
  for entry in told:
    first, score = entry["top_prototypes"][0], entry["top_classes"][0]["score"]
    print(f"{entry['image_id']}: {entry['predicted_class']} (score {score:.2f})")
    print(
      f"  most of all prototype {first['prototype']} of {first['class']}: similarity "
      f"{first['activation']:.2f} x weight {first['weight']:.2f} = {first['contribution']:.2f}"
    )
    if "ensemble" in entry:
      best = entry["ensemble"][0]
      print(f"  the ensemble: {best['class']} (score {best['score']:.2f})")
  for message in chosen.unreadable:
    print(f"  not read: {message}")
  print(f"figures in {place}/figures, arrays in {place}/explain.npz, texts in {place}/explain.json")


def _write_nearest(
  place: pathlib.Path, run: Run, prototypes: np.ndarray, found: dict, num_pages: int | None
) -> dict:
  """nearest.npz, nearest.json and a figure a class; the share of patches of the own class."""
  own = np.array(run.model.prototype_class)[prototypes]
  shares = {name: explain.purity(near["label"], own) for name, near in found.items()}
  arrays = {f"{name}_{key}": a for name, near in found.items() for key, a in near.items()}
  _save_arrays(place / "nearest.npz", prototypes=prototypes, **arrays)
  told = explain_pages.tell_nearest(run, prototypes, found)
  write_json(place / "nearest.json", {"prototypes": told, "purity": shares})
  explain_pages.draw_nearest(place / "figures", run, prototypes, found, num_pages)
  for name, share in shares.items():
    print(f"nearest {name} patches of the prototype's class {tables.format_share(share)}")
  return {"purity": shares}


def main() -> None:
  given = flags.FLAGS
  prototypes = cli.integers("prototypes", given.prototypes, "numbers of prototypes")
  nearest = given.nearest
  if nearest is None and (given["global"].value or prototypes is not None):
    nearest = _NEAREST
  cli.measure_run(
    "explain",
    lambda run, place: measure(
      run,
      place,
      images=given.images,
      num_images=given.num_images,
      num_prototypes=given.num_prototypes,
      num_classes=given.num_classes,
      nearest=nearest,
      prototypes=prototypes,
      ensemble=[runs.open_run(folder) for folder in given.ensemble],
      seed=given.seed,
    ),
  )


if __name__ == "__main__":
  define_flags()
  cli.run(main)
