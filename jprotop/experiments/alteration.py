"""Artefacts (Section 4, App. D and F.2): are the same prototypes found in images without them?

  jprotop alteration --workdir=runs/demo/altered
  jprotop alteration --workdir=RUN --out=OUT --parameter=10 --classes=0,3,5 --images=3,17

It looks at every test image as it is and altered (JPEG compressed, in the paper), follows the most
activated prototype of one version to the other, and compares the two rankings of all prototypes.
Figures, results.json and alteration.npz go to --out, by default the run's folder, or with --images
a new folder in it. alteration.npz holds, for each of N test images and NAME in clean and altered:
activations_NAME [N, P]; cells_NAME [N, P, 2], the (row, column) where each prototype is found;
predictions_NAME, labels and image_id [N].
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from jprotop.data import batches, own_images
from jprotop.data.alterations import ALTERATIONS, Scheme
from jprotop.data.dataset import Split
from jprotop.experiments import alteration_numbers as numbers_of
from jprotop.experiments.alteration_claims import claims
from jprotop.experiments.alteration_numbers import Alteration, Sightings
from jprotop.experiments.alteration_text import PASSAGES, tell
from jprotop.experiments.attacking import rows_of, source_of, view_of
from jprotop.experiments.experiment import Beside, Experiment, Flag, register, whole_numbers
from jprotop.files import atomic_path, ensure_folder
from jprotop.prototypes import selectors
from jprotop.prototypes.see import see
from jprotop.report import alteration_charts, alteration_panels, canvas
from jprotop.report.page import View
from jprotop.runs.run import Run

_CHARTED = 75  # prototypes in Figures 10 to 15


def measure(
  run: Run,
  out: pathlib.Path,
  *,
  images: Sequence[str] | None = None,
  num_figures: int = 3,
  beside: Beside | None = None,
) -> dict:
  """Looks at the test images in both versions; the record's "shown" are those in the figures.

  Of a study's other networks the same images are shown as of the altered one, as in Figures 13-15.

  Raises:
    InputError: a parameter, a class or an image that there is not.
  """
  shown = None if images is None else list(whole_numbers(images, "images"))
  if beside and "altered" in beside.found:
    shown = beside.found["altered"]["shown"]
  scheme, split = run.scheme, run.dataset.split("test")
  if shown:
    own_images.from_split(split, np.array(shown))  # A bad index is said now, not after the work.
  ensure_folder(out / "figures")
  altered_split = split.altered(scheme.of_every_class())
  altered = _look(run, altered_split, "altered images")
  clean = _look(run, split, "original images")
  asked = num_figures if shown is None else None
  if shown is None:
    classes = scheme.altered_classes(len(run.class_names))
    groups = numbers_of.selections(split.label, altered.prediction, classes)
    shown = draw_images(groups, num_figures, run.config["measure"]["seed"])
  record = {
    **_setting(run),
    "shown": shown,
    "num_figures_asked": asked,
    **_numbers(run, split, altered, clean),
  }
  _write_arrays(out / "alteration.npz", split, altered, clean)
  _write_charts(out / "figures", altered_split, altered, clean, record, _title(scheme))
  _write_examples(out / "figures", run, altered_split, altered, shown)
  return record


def _look(run: Run, split: Split, title: str) -> Sightings:
  size = min(run.config["compute"]["evaluation_batch_size"], len(split))
  return Sightings(**see(run.network, split, selectors.cells, batch_size=size, title=title))


def _setting(run: Run) -> dict:
  """What is measured, of which network."""
  scheme, available = run.scheme, len(run.model.prototype_class)
  return {
    "alteration": scheme.name,
    "parameter": scheme.parameter,
    "classes": run.altered_class_names,
    "trained_on": run.config["train"]["network"],
    "trained_as_measured": run.trained_scheme == scheme,
    "top_k": numbers_of.scaled_top_k(available),
    "num_prototypes": available,
  }


def _numbers(run: Run, split: Split, altered: Sightings, clean: Sightings) -> dict:
  """What the two looks differ by, for each group of images and for each image."""
  classes, prototypes = run.scheme.altered_classes(len(run.class_names)), run.model.prototype_class
  rows = {
    **numbers_of.per_image(altered, clean, top_k=numbers_of.scaled_top_k(len(prototypes))),
    **numbers_of.by_kind(altered, clean, split.label, classes, prototypes),
  }
  return {
    "selections": numbers_of.drift(rows, split.label, altered.prediction, classes),
    "per_image": numbers_of.packed_rows(rows, split.label, classes),
  }


def draw_images(groups: dict[str, np.ndarray], count: int, seed: int) -> list[int]:
  """Indices of images to show: of the paper's group, or of the first larger one with any image."""
  for name in ("paper", "altered_classes", "all"):
    found = np.flatnonzero(groups[name])
    if found.size:
      return np.random.default_rng([seed, 7]).permutation(found)[:count].tolist()
  return []


def _write_arrays(path: pathlib.Path, split: Split, altered: Sightings, clean: Sightings) -> None:
  arrays = {"labels": split.label, "image_id": np.array(split.image_id)}
  for name, seen in (("altered", altered), ("clean", clean)):
    arrays[f"activations_{name}"] = seen.activations
    arrays[f"cells_{name}"] = seen.cell
    arrays[f"predictions_{name}"] = seen.prediction
  with atomic_path(path) as temporary:
    np.savez(temporary, allow_pickle=False, **arrays)


def _write_charts(
  figures: pathlib.Path,
  split: Split,
  altered: Sightings,
  clean: Sightings,
  record: dict,
  title: str,
) -> None:
  canvas.save(
    alteration_charts.similarity_drop(record["selections"]), figures / "alteration_drop.png"
  )
  shown = record["shown"]
  first = shown[0] if shown else 0
  pair = (split.crop(first), split.altered_crop(first))
  figure = alteration_panels.artefacts(
    *(batches.to_float(np.asarray(image)) for image in pair), title=title
  )
  canvas.save(figure, figures / "alteration_artefacts.png")
  for number, i in enumerate(shown):
    name = f"Image {canvas.plain(split.image_id[i])}"
    figure = alteration_charts.top_similarities(
      altered.activations[i], clean.activations[i], count=_CHARTED, title=name
    )
    canvas.save(figure, figures / f"alteration_top_similarities_{number}.png")


def _title(scheme: Scheme) -> str:
  """ "JPEG quality 20"."""
  return f"{scheme.name.upper()} {ALTERATIONS[scheme.name].parameter} {scheme.parameter:g}"


def _write_examples(
  figures: pathlib.Path, run: Run, altered_split: Split, altered: Sightings, shown: list[int]
) -> None:
  """Figure 2 of each image: the most activated prototype of its altered version."""
  if not shown:
    return
  split, prototypes = run.dataset.test, altered.activations[shown].argmax(axis=1)
  views = (_views(run, version, shown, prototypes) for version in (altered_split, split))
  for number, (i, prototype, with_, without) in enumerate(zip(shown, prototypes.tolist(), *views)):
    example = alteration_panels.AlteredExample(
      prototype=source_of(run, prototype),
      altered=with_,
      clean=without,
      title=_title(run.scheme),
      true_class=run.class_names[split.label[i]],
      image_id=split.image_id[i],
    )
    canvas.save(
      alteration_panels.altered_image(example), figures / f"alteration_example_{number}.png"
    )


def _views(run: Run, split: Split, shown: list[int], prototypes: np.ndarray) -> list[View]:
  """One version of each shown image, and where its prototype is found there."""
  images = own_images.from_split(split, np.array(shown))
  size = min(rows_of(run), len(images))
  seen = see(run.network, images.image, selectors.maps, batch_size=size)
  return [
    view_of(run, images.image[k], seen["similarity_map"][k, ..., prototype], seen["logits"][k])
    for k, prototype in enumerate(prototypes)
  ]


register(
  Experiment(
    name="alteration",
    passes=lambda measure, network, count: 2.0 * count,
    summary="whether the same prototypes are found without artefacts (Section 4)",
    measure=measure,
    record=Alteration,
    networks=("altered", "standard", "remedied"),
    also=("altered",),
    settings=("alteration", "seed"),
    flags=(
      Flag(
        name="parameter",
        kind=int,
        help="Of the alteration: JPEG's quality, 1 to 95.",
        setting="measure.alteration.parameter",
      ),
      Flag(
        name="classes",
        help="Altered classes: half, odd, or labels (0,3,5).",
        setting="measure.alteration.classes",
      ),
      Flag(name="images", kind=list, help="Indices of the test images to show (3,17).", apart=True),
      Flag(
        name="num_figures",
        kind=int,
        default=3,
        help="How many images to show, if drawn.",
        least=0,
      ),
      Flag(
        name="seed",
        kind=int,
        help="Of the choice of the images to show.",
        setting="measure.seed",
        least=0,
      ),
    ),
    tell=tell,
    passages=PASSAGES,
    claims=claims,
  )
)
