"""TFDS builders that need no TensorFlow: encoded images in array_record files, in a fixed order.

Pictures stay as their original bytes (Pillow decodes them, not TFDS, whose decoder depends on what
is installed), keys are integers and shuffling is off, so that index i is image i everywhere.
"""

import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow_datasets as tfds

from jprotop.data import decode
from jprotop.data.folder import WHOLE_IMAGE
from jprotop.data.parts import PARTS
from jprotop.errors import InputError

SPLITS = ("train", "test")


class ImageSet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A data set of encoded images with label, box, parts and an id.

  Args:
    examples: split name to an iterator of examples, in their final order.
    fingerprint: of everything that shaped them; it names the prepared version on the disk.
    cache: folder below which the data set is stored.
  """

  VERSION = tfds.core.Version("1.0.0")

  def __init__(
    self, *, examples: Callable[[str], Iterator[dict]], fingerprint: str, cache: pathlib.Path
  ):
    self._examples = examples
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
    """Every image is decoded and cropped once here, so that a bad one is found before training."""
    problems, total = [], 0
    with ThreadPoolExecutor() as pool:
      examples = self._examples(split)
      # A bounded window: pictures are not all held in memory.
      while window := list(itertools.islice(examples, 256)):
        for example, problem in zip(window, pool.map(_problem, window)):
          problems += [problem] if problem else []
          yield total, example
          total += 1
    if problems:
      raise InputError(
        f"{len(problems)} of {total} {split} images cannot be used:\n  "
        + "\n  ".join(problems[:10])
        + ("\n  ..." if len(problems) > 10 else "")
      )
    if not total:
      raise InputError(f"the {split} split has no image; add some")


def _problem(example: dict) -> str | None:
  """What is wrong with an example's picture or box, if anything."""
  try:
    image = decode.decode(example["image"], example["image_id"])
  except InputError as error:
    return str(error)
  try:
    decode.pixel_box(box_or_whole(example["box"], image), image.size)
  except InputError as error:
    return f"{example['image_id']}: {error}"
  return None


def box_or_whole(box: np.ndarray, image) -> tuple[float, ...]:
  """The box (x, y, w, h), or that of the whole image where none was given."""
  if tuple(box) == WHOLE_IMAGE:
    return (0.0, 0.0, float(image.width), float(image.height))
  return tuple(float(v) for v in box)


class Cub(ImageSet, skip_registration=True):
  """CUB-200-2011 in its official layout, or any data set in that layout."""


class Toybirds(ImageSet, skip_registration=True):
  """Birds drawn by code."""


class Folder(ImageSet, skip_registration=True):
  """A user's own images."""


def prepare(builder: ImageSet) -> dict[str, "tfds.data_sources.ArrayRecordDataSource"]:
  """Writes the data set unless it is there, and opens its splits for random access."""
  tfds.disable_progress_bar()
  builder.download_and_prepare()
  decoders = {"image": tfds.decode.SkipDecoding()}
  open_split = functools.partial(builder.as_data_source, decoders=decoders)
  return {split: open_split(split) for split in SPLITS}
