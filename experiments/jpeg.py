"""The JPEG experiment (Section 4, App. D and F.2): are the same prototypes found without artefacts?

  python -m experiments.jpeg --workdir=runs/demo/jpeg
  python -m experiments.jpeg --workdir=RUN --out=OUT --quality=10 --classes=0,3,5 --images=3,17

It looks at every test image as it is and JPEG compressed, follows the most activated prototype of
one version to the other, and compares the two rankings of all prototypes. Figures, results.json and
jpeg.npz go to --out, by default the run's folder. jpeg.npz holds, for each of N test images and
NAME in clean and compressed: activations_NAME [N, P]; cells_NAME [N, P, 2], the (row, column) where
each prototype is found; predictions_NAME, labels and image_id [N].
"""

import pathlib

import numpy as np
from absl import flags

from experiments import budget, cli
from jprotop import regions
from jprotop.data import batches, jpeg, own_images
from jprotop.data.dataset import Split
from jprotop.evaluation import head_on_stomach, jpeg_drift
from jprotop.evaluation.jpeg_drift import Seen
from jprotop.figures import canvas, jpeg_charts, jpeg_panels, tables
from jprotop.figures.page import View
from jprotop.files import atomic_path, ensure_folder
from jprotop.training.runs import Run

_TOP_K = 5
_CHARTED = 75  # prototypes in Figures 10 to 15


def define_flags() -> None:
  """The command's own flags; not at import, for other commands import this file."""
  flags.DEFINE_integer("quality", None, "Of the JPEG compression, 1 to 95; default: the run's.")
  flags.DEFINE_string(
    "classes", None, "Compressed classes: half, odd, or labels (0,3,5); default: the run's."
  )
  flags.DEFINE_list("images", None, "Indices of the test images to show (3,17).")
  flags.DEFINE_integer("num_figures", 3, "How many images to show, if drawn.", lower_bound=0)
  cli.define_drawing("the choice of the images to show")


def measure(
  run: Run,
  place: pathlib.Path,
  *,
  quality: int | None = None,
  classes: str | None = None,
  images: list[int] | None = None,
  num_figures: int = 3,
  seed: int = 0,
) -> dict:
  """Arguments are the command's flags; the section's "shown" are the images in the figures.

  Raises:
    InputError: a quality, a class or an image that there is not.
  """
  scheme = chosen_scheme(run, quality, classes)
  split = run.dataset.split("test")
  if images:
    own_images.from_split(split, np.array(images))  # A bad index is said now, not after the work.
  ensure_folder(place / "figures")
  compressed_split = split.compressed(jpeg.Scheme(scheme.quality))
  compressed, clean = (
    jpeg_drift.look(
      run.model,
      run.variables,
      version,
      batch_size=run.config["training"]["evaluation_batch_size"],
      title=title,
    )
    for title, version in (("compressed images", compressed_split), ("original images", split))
  )
  drift = jpeg_drift.drift(compressed, clean, split.label, scheme.classes, top_k=_TOP_K)
  shown = images
  if shown is None:
    groups = jpeg_drift.selections(split.label, compressed.prediction, scheme.classes)
    shown = draw_images(groups, num_figures, seed)
  numbers = {
    "variant": run.config["variant"],
    "quality": scheme.quality,
    "classes": [run.class_names[label] for label in scheme.classes],
    "top_k": min(_TOP_K, len(run.model.prototype_class)),
    "num_prototypes": len(run.model.prototype_class),
    "shown": shown,
    "selections": drift,
  }
  _write_arrays(place, split, compressed, clean)
  _write_figures(place, run, compressed_split, compressed, clean, numbers)
  _print_summary(place, run, scheme, numbers)
  return {"jpeg_drift": numbers}


def chosen_scheme(run: Run, quality: int | None, classes: str | None) -> jpeg.Scheme:
  """The run's own alteration, but for what is given."""
  chosen = run.scheme.classes
  if classes is not None:
    chosen = jpeg.choose_classes(classes, len(run.class_names), run.config["jpeg"]["seed"])
  return jpeg.Scheme(run.scheme.quality if quality is None else quality, chosen)


def draw_images(groups: dict[str, np.ndarray], count: int, seed: int) -> list[int]:
  """Indices of images to show: of the paper's group, or of the first larger one with any image."""
  for name in ("paper", "compressed_classes", "all"):
    found = np.flatnonzero(groups[name])
    if found.size:
      return np.random.default_rng([seed, 7]).permutation(found)[:count].tolist()
  return []


def _write_arrays(place: pathlib.Path, split: Split, compressed: Seen, clean: Seen) -> None:
  arrays = {"labels": split.label, "image_id": np.array(split.image_id)}
  for name, seen in (("compressed", compressed), ("clean", clean)):
    arrays[f"activations_{name}"] = seen.activations
    arrays[f"cells_{name}"] = seen.cell
    arrays[f"predictions_{name}"] = seen.prediction
  with atomic_path(place / "jpeg.npz") as temporary:
    np.savez(temporary, **arrays)


def _write_figures(
  place: pathlib.Path,
  run: Run,
  compressed_split: Split,
  compressed: Seen,
  clean: Seen,
  numbers: dict,
) -> None:
  figures, shown, quality = place / "figures", numbers["shown"], numbers["quality"]
  for kind in ("example", "top_similarities"):  # of an earlier run that showed more images
    for old in figures.glob(f"jpeg_{kind}_*.png"):
      old.unlink()
  split = run.dataset.test
  canvas.save(jpeg_charts.similarity_drop(numbers["selections"]), figures / "jpeg_drop.png")
  first = split.crop(shown[0] if shown else 0)
  pair = (first, jpeg.compress(first, quality))
  original, altered = (batches.to_float(np.asarray(image)) for image in pair)
  figure = jpeg_panels.artefacts(original, altered, quality=quality)
  canvas.save(figure, figures / "jpeg_artefacts.png")
  for number, example in enumerate(_examples(run, compressed_split, compressed, shown)):
    canvas.save(jpeg_panels.jpeg_example(example), figures / f"jpeg_example_{number}.png")
    i = shown[number]
    name = f"Image {canvas.plain(split.image_id[i])}: {canvas.class_label(example.true_class)}"
    figure = jpeg_charts.top_similarities(
      compressed.activations[i], clean.activations[i], count=_CHARTED, title=name
    )
    canvas.save(figure, figures / f"jpeg_top_similarities_{number}.png")


def _examples(
  run: Run, compressed_split: Split, compressed: Seen, shown: list[int]
) -> list[jpeg_panels.JpegExample]:
  """What Figure 2 shows of each image: the most activated prototype of its compressed version."""
  if not shown:
    return []
  split, classes, prototype_class = run.dataset.test, run.class_names, run.model.prototype_class
  prototypes = compressed.activations[shown].argmax(axis=1)
  views = (_views(run, version, shown, prototypes) for version in (compressed_split, split))
  examples = []
  for i, prototype, altered, original in zip(shown, prototypes.tolist(), *views):
    source_image, source_box = run.source(prototype)
    examples.append(
      jpeg_panels.JpegExample(
        source_image=source_image,
        source_box=source_box,
        compressed=altered,
        clean=original,
        quality=compressed_split.scheme.quality,
        prototype_id=prototype,
        prototype_class=classes[prototype_class[prototype]],
        true_class=classes[split.label[i]],
        image_id=split.image_id[i],
      )
    )
  return examples


def _views(run: Run, split: Split, shown: list[int], prototypes: np.ndarray) -> list[View]:
  """One version of each shown image, and where its prototype is found there."""
  images = own_images.from_split(split, np.array(shown))
  seen = head_on_stomach.look(run.model, run.variables, images, budget.rows(run))
  views = []
  for k, prototype in enumerate(prototypes):
    similarity_map = seen["similarity_map"][k, ..., prototype]
    views.append(
      View(
        image=images.image[k],
        map_up=regions.upsample(similarity_map, split.image_size, split.image_size),
        box=regions.high_activation_box(similarity_map, split.image_size, split.image_size),
        similarity=float(similarity_map.max()),
        predicted=run.class_names[int(seen["logits"][k].argmax())],
      )
    )
  return views


def _print_summary(place: pathlib.Path, run: Run, scheme: jpeg.Scheme, numbers: dict) -> None:
  count, trained = len(scheme.classes), run.config["variant"].startswith("jpeg")
  print(f"JPEG, quality {scheme.quality}, {count} of {len(run.class_names)} classes compressed:")
  if not trained:
    print("  a control: this network was not trained on compressed images")
  elif run.config["variant"] == "jpeg" and scheme != run.scheme:
    print(f"  the network itself was trained at quality {run.scheme.quality} and its own classes")
  for name, text in (
    ("paper", "compressed classes, compressed version classified correctly"),
    ("uncompressed_classes", "uncompressed classes (control)"),
  ):
    found = numbers["selections"][name]
    print(f"  {text}, {found['num_images']} images:")
    for key, label in (
      ("similarity_compressed", "similarity of the top prototype, compressed"),
      ("similarity_clean", "  the same prototype, original"),
      ("similarity_drop", "  drop"),
      ("top_k_overlap", f"share of the top {numbers['top_k']} that stay there"),
      ("top_prototype_kept", "top prototype the same"),
      ("cell_moved", "top prototype found in another cell"),
    ):
      print(f"    {label:<44} {tables.format_metric(found[key])}")
  print(f"  figures in {place}/figures, arrays in {place}/jpeg.npz")


def main() -> None:
  given = flags.FLAGS
  cli.measure_run(
    "jpeg",
    measure,
    quality=given.quality,
    classes=given.classes,
    images=cli.integers("images", given.images, "indices of test images"),
    num_figures=given.num_figures,
    seed=given.seed,
  )


if __name__ == "__main__":
  define_flags()
  cli.run(main)
