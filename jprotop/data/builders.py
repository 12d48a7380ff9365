"""TFDS builders that need no TensorFlow: encoded images in array_record files, in a fixed order.

Pictures stay as their original bytes (Pillow decodes them, not TFDS, whose decoder depends on what
is installed), keys are integers and shuffling is off, so that index i is image i everywhere.
"""

import contextlib
import io
import itertools
import pathlib
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from jprotop.data import decode
from jprotop.data.parts import PARTS
from jprotop.data.sources import Source
from jprotop.errors import InputError

SPLITS = ("train", "test")


class ImageSet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A data set of encoded images with label, box, parts and an id.

  Args:
    examples: split name to an iterator of examples, in their final order; a box (x, y, w, h) may
      be None, which stands for the whole image.
    counts: images of each split, for the progress bar.
    fingerprint: of everything that shaped them; it names the prepared version on the disk.
    cache: folder below which the data set is stored.
  """

  VERSION = tfds.core.Version("1.0.0")

  def __init__(
    self,
    *,
    examples: Callable[[str], Iterator[dict]],
    counts: dict[str, int],
    fingerprint: str,
    cache: pathlib.Path,
  ):
    self._examples, self._counts = examples, counts
    super().__init__(
      config=tfds.core.BuilderConfig(name=fingerprint),
      data_dir=str(cache),
      file_format="array_record",
    )

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      "image": tfds.features.Image(shape=(None, None, 3)),
      "image_id": tfds.features.Text(),
      "label": tfds.features.Scalar(np.int64),
      "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
      "parts": tfds.features.Tensor(shape=(len(PARTS), 3), dtype=np.float32),
    }
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
    )

  def _split_generators(self, _):
    return {split: self._generate_examples(split) for split in SPLITS}

  def _generate_examples(self, split: str):
    """Every image is decoded once here, so that a bad one is found before training."""
    problems, total = [], 0
    label = f"reading {split} images"
    with ThreadPoolExecutor() as pool, tqdm(total=self._counts[split], desc=label) as bar:
      examples = self._examples(split)
      # A bounded window: pictures are not all held in memory.
      while window := list(itertools.islice(examples, 64)):
        for number, (example, problem) in enumerate(pool.map(_checked, window), total):
          if problem:
            problems.append(problem)
          else:
            yield number, example
          bar.update()
        total += len(window)
    if problems:
      raise InputError(
        f"{len(problems)} of {total} {split} images cannot be used:\n  "
        + "\n  ".join(problems[:10])
        + ("\n  ..." if len(problems) > 10 else "")
      )
    if not total:
      raise InputError(f"the {split} split has no image; add some")


def _checked(example: dict) -> tuple[dict, str | None]:
  """The example with the box of whole pixels that is cropped; what is wrong with it, or None."""
  try:
    image = decode.decode(example["image"], example["image_id"])
  except InputError as error:
    return example, str(error)
  box = (0, 0, *image.size) if example["box"] is None else example["box"]
  try:
    box = decode.pixel_box(box, image.size)
  except InputError as error:
    return example, f"{example['image_id']}: {error}"
  return {**example, "box": np.array(box, np.float32)}, None


def builder_of(name: str, source: Source, fingerprint: str, cache: pathlib.Path) -> ImageSet:
  """The builder of a data set, whose folder in the cache has its name and the fingerprint's."""
  kind = types.new_class(
    name.title().replace("_", ""), (ImageSet,), {"skip_registration": True},
    lambda body: body.update({"__module__": __name__, "name": name}),
  )  # fmt: skip
  return kind(examples=source.examples, counts=source.counts, fingerprint=fingerprint, cache=cache)


def write(builder: ImageSet) -> None:
  """Writes the data set unless it is there."""
  tfds.disable_progress_bar()
  # It tells on stdout, and warns, of things that only authors of registered data sets need.
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare()


def open_splits(builder: ImageSet) -> dict[str, Sequence]:
  """Random access to the encoded examples of each split of a data set that was written."""
  decoders = {"image": tfds.decode.SkipDecoding()}
  return {split: builder.as_data_source(split, decoders=decoders) for split in SPLITS}
