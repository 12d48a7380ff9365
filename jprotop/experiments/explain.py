"""Why a network decides as it does: its prototypes in an image, and what each prototype stands for.

  jprotop explain --workdir=runs/demo/standard --images=3,17
  jprotop explain --workdir=RUN --images=bird.jpg --num_prototypes=5 --out=OUT
  jprotop explain --workdir=RUN --global --prototypes=0,3,5 --nearest=5
  jprotop explain --workdir=RUN --ensemble=RUN2,RUN3

Without --images it explains test images drawn from --seed. --global also looks for the nearest
patches of each prototype in the training and test images, of each image its nearest one.

All goes to --out, by default the run's folder, or with --images a new folder in it: figures,
explain.json and nearest.json to read, a summary into results.json, and
  explain.npz, for N images: image_id [N]; logits [N, C]; activations [N, P]; sq_dist and
    similarity_map [N, h, w, P]; top_prototypes [N, K] by activation, and their boxes [N, K, 4]
    (y0, y1, x0, x1) in pixels; with --ensemble also ensemble_logits [N, C];
  nearest.npz, for Q prototypes: prototypes [Q]; and for NAME in train and test, nearest first,
    NAME_image and NAME_label [Q, K], NAME_cell [Q, K, 2] (row, column), NAME_sq_dist [Q, K] and
    NAME_box [Q, K, 4].
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jprotop.data import own_images
from jprotop.data.own_images import Images
from jprotop.errors import InputError
from jprotop.experiments import explain_pages
from jprotop.experiments.attacking import IMAGES
from jprotop.experiments.experiment import (
  Beside,
  Experiment,
  Flag,
  Passage,
  Pictures,
  check_distinct,
  register,
  whole_numbers,
)
from jprotop.files import atomic_path, write_json
from jprotop.prototypes import accuracy, explain
from jprotop.report import tables
from jprotop.runs import run as runs
from jprotop.runs.records import Mean, Record
from jprotop.runs.run import Run

_NEAREST = 5


class Explain(Record):
  """What was explained; purity by split, of a prototype's nearest patches the share of its class:
  the mean over prototypes.

  num_images_asked is how many were to be drawn; None where it was said which.
  """

  num_images: int
  num_images_asked: int | None
  num_prototypes: int
  unreadable: list[str]
  explained: list[dict[str, Any]]
  nearest: int | None = None
  purity: dict[str, Mean] | None = None


@dataclasses.dataclass(frozen=True)
class Request:
  """What is to be explained, as the command's flags say it; `nearest` None: images alone."""

  images: str | None
  num_images: int
  num_prototypes: int
  num_classes: int
  nearest: int | None
  prototypes: tuple[int, ...]
  ensemble: tuple[str, ...]

  @classmethod
  def of(cls, run: Run, flags: Mapping[str, Any]) -> "Request":
    """Flags that are not given, or None, have the defaults that --help says."""
    given = {name: value for name, value in flags.items() if value is not None}
    available, nearest = len(run.model.prototype_class), given.get("nearest")
    check_distinct([run.workdir, *given.get("ensemble", ())], "ensemble")
    if nearest is None and (given.get("global") or "prototypes" in given):
      nearest = _NEAREST
    return cls(
      images=given.get("images"),
      num_images=given.get("num_images", 3),
      num_prototypes=given.get("num_prototypes", min(10, available)),
      num_classes=given.get("num_classes", min(3, len(run.class_names))),
      nearest=nearest,
      prototypes=whole_numbers(given.get("prototypes", range(available)), "prototypes"),
      ensemble=tuple(given.get("ensemble", ())),
    )


def measure(
  run: Run,
  out: pathlib.Path,
  *,
  request: Request | None = None,
  num_pages: int | None = None,
  beside: Beside | None = None,
  **flags: Any,
) -> dict:
  """Explains images, and with `nearest` prototypes; writes all that the command says.

  Args:
    request, flags: what the command's flags say, as one or one by one.
    num_pages: how many classes' nearest patches are drawn; None: all.

  Raises:
    InputError: a prototype, an image or a number that there is not, or other data in the ensemble.
  """
  request = request or Request.of(run, flags)
  members = [runs.open_run(folder) for folder in request.ensemble]
  _check_request(run, request, members)
  chosen = _choose_images(run, request, run.image_size)
  record = _local_analysis(run, chosen.image, request.num_prototypes)
  if members:
    record["ensemble_logits"] = _ensemble_logits(members, record["logits"], run, request)
  told = explain_pages.tell_images(run, chosen, record, request.num_classes)
  _save_arrays(out / "explain.npz", image_id=np.array(chosen.image_id), **record)
  write_json(out / "explain.json", {"images": told, "unreadable": chosen.unreadable})
  explain_pages.draw_images(out / "figures", run, chosen, record, told)
  summary = {
    "num_images": len(chosen),
    "num_images_asked": None if request.images else request.num_images,
    "num_prototypes": request.num_prototypes,
    "unreadable": chosen.unreadable,
    "explained": [_in_short(entry) for entry in told],
  }
  if request.nearest is None:
    return summary
  purity = _nearest_patches(run, out, request.prototypes, request.nearest, num_pages)
  return summary | {"nearest": request.nearest, "purity": purity}


def _local_analysis(run: Run, images: np.ndarray, num_prototypes: int) -> dict[str, np.ndarray]:
  size = run.config["compute"]["evaluation_batch_size"]
  return explain.local_analysis(run.network, images, num_prototypes=num_prototypes, batch_size=size)


def _in_short(entry: dict) -> dict:
  """What results.json keeps of an image's entry in explain.json."""
  first, short = entry["top_prototypes"][0], {"image_id": entry["image_id"]}
  short |= {"predicted_class": entry["predicted_class"], "score": entry["top_classes"][0]["score"]}
  names = ("prototype", "class", "activation", "weight", "contribution")
  short["first_prototype"] = {name: first[name] for name in names}
  return short | ({"ensemble": entry["ensemble"][0]} if "ensemble" in entry else {})


def _check_request(run: Run, request: Request, members: Sequence[Run]) -> None:
  """InputError, before any work, where something is asked for that there is not."""
  for member in members:
    _check_member(run, member)
  if request.nearest is not None:
    explain.check_prototypes(request.prototypes, len(run.model.prototype_class))
    for split in (run.seen.train, run.seen.test):
      explain.check_neighbours(request.nearest, split)
  explain.check_num_prototypes(request.num_prototypes, len(run.model.prototype_class))
  if not 1 <= request.num_classes <= len(run.class_names):
    raise InputError(
      f"num_classes={request.num_classes} must be 1 to {len(run.class_names)}, the classes of this "
      "network"
    )


def _check_member(run: Run, member: Run) -> None:
  if (member.info["data"], member.class_names) != (run.info["data"], run.class_names):
    raise InputError(
      f"--ensemble: {member.workdir} was trained on other images or classes than {run.workdir}; "
      "take runs on the same data set"
    )


def _choose_images(run: Run, request: Request, image_size: int) -> Images:
  """What `--images` names, or test images drawn from a seed; `image_size` S is in pixels."""

  def test():
    return dataclasses.replace(run.seen.test, image_size=image_size)

  if request.images is not None:
    return own_images.from_argument(request.images, image_size, test)
  rng = np.random.default_rng([run.config["measure"]["seed"], 8])
  drawn = rng.permutation(len(test()))[: request.num_images]
  return own_images.from_split(test(), np.sort(drawn))


def _ensemble_logits(
  members: Sequence[Run], own: np.ndarray, run: Run, request: Request
) -> np.ndarray:
  """Summed logits [N, C]; each network gets the same images, at its own size."""
  scores = [own]
  for member in members:
    images = _choose_images(run, request, member.image_size).image
    scores.append(_local_analysis(member, images, 1)["logits"])
  return accuracy.sum_logits(scores)


def _save_arrays(path: pathlib.Path, **arrays: np.ndarray) -> None:
  with atomic_path(path) as temporary:
    np.savez(temporary, allow_pickle=False, **arrays)


def _nearest_patches(
  run: Run, out: pathlib.Path, chosen: tuple[int, ...], k: int, num_pages: int | None
) -> dict[str, dict]:
  """nearest.npz, nearest.json and a figure a class; the share of patches of the own class."""
  size, prototypes = run.config["compute"]["evaluation_batch_size"], np.array(chosen)
  found = {
    split.name: explain.nearest_in_split(run.network, split, prototypes, k=k, batch_size=size)
    for split in (run.seen.train, run.seen.test)
  }
  own = np.array(run.model.prototype_class)[prototypes]
  shares = {name: explain.purity(near["label"], own) for name, near in found.items()}
  arrays = {f"{name}_{key}": a for name, near in found.items() for key, a in near.items()}
  _save_arrays(out / "nearest.npz", prototypes=prototypes, **arrays)
  told = explain_pages.tell_nearest(run, prototypes, found)
  write_json(out / "nearest.json", {"prototypes": told, "purity": shares})
  explain_pages.draw_nearest(out / "figures", run, prototypes, found, num_pages)
  return shares


def tell(record: Mapping[str, Any], out: pathlib.Path) -> Iterator[str]:
  """What the command prints."""
  if (asked := record["num_images_asked"]) and record["num_images"] < asked:
    yield f"{record['num_images']} test images, which are all that there are ({asked} asked for)"
  for entry in record["explained"]:
    first = entry["first_prototype"]
    yield f"{entry['image_id']}: {entry['predicted_class']} (score {entry['score']:.2f})"
    yield (
      f"  most of all prototype {first['prototype']} of {first['class']}: similarity "
      f"{first['activation']:.2f} x weight {first['weight']:.2f} = {first['contribution']:.2f}"
    )
    if "ensemble" in entry:
      yield f"  the ensemble: {entry['ensemble']['class']} (score {entry['ensemble']['score']:.2f})"
  yield from (f"  not read: {message}" for message in record["unreadable"])
  for name, purity in (record.get("purity") or {}).items():
    yield (
      f"nearest {name} patches of the prototype's class, mean share over prototypes "
      f"{tables.format_metric(purity)}"
    )
  yield f"figures in {out}/figures, arrays in {out}/explain.npz, texts in {out}/explain.json"


register(
  Experiment(
    name="explain",
    summary="why a network decides as it does, and what each prototype stands for",
    measure=measure,
    record=Explain,
    networks=("standard",),
    settings=("seed",),
    flags=(
      IMAGES,
      Flag(
        name="num_images",
        kind=int,
        default=3,
        help="How many images, where it draws them.",
        least=1,
      ),
      Flag(name="num_prototypes", kind=int, help="Most activated prototypes shown; default: 10."),
      Flag(name="num_classes", kind=int, help="Highest classes of which all is told; default: 3."),
      Flag(
        name="global",
        kind=bool,
        default=False,
        help="Also find the nearest patches of prototypes.",
      ),
      Flag(name="nearest", kind=int, help=f"How many; default: {_NEAREST}. Implies --global."),
      Flag(name="prototypes", kind=list, help="Of these alone (0,3,5); implies --global."),
      Flag(name="ensemble", kind=list, help="Other runs on the same data, whose logits are added."),
      Flag(name="seed", kind=int, help="Of the choice of images.", setting="measure.seed", least=0),
    ),
    # All prototypes are counted, but a page for each of 200 classes would take ten minutes to draw.
    in_study=lambda config, network: {"num_images": 2, "nearest": _NEAREST, "num_pages": 2},
    tell=tell,
    passages=(
      Passage(
        heading="Explanations of single images",
        caption="An image, the prototypes that it activates most, where they come from and where "
        "they are found, and how much each adds to the class score. What counts is the strongest "
        "cell of a prototype's map, marked by a white cross: its similarity is the prototype's.",
        pictures=(Pictures(network="standard", pattern="explain_*.png", most=2),),
      ),
    ),
  )
)
