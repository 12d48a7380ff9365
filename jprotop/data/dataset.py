"""A data set as the rest of jprotop sees it: splits with labels, ids, boxes, parts and pixels."""

import dataclasses
import functools
import hashlib
import inspect
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8
from PIL import Image

from jprotop.data import (  # noqa: F401
  alterations,
  augment,
  cub,
  decode,
  folder,
  pixels,
  toybirds,
)
from jprotop.data.alterations import Scheme
from jprotop.data.prepared import Prepared, Records
from jprotop.data.sources import Source, open_source
from jprotop.data.twins import twin_labels, twin_names
from jprotop.errors import InputError
from jprotop.files import user_path

# Augmented copies are kept as a pixel file up to this size, and made anew each epoch beyond it.
MAX_STORED_COPIES_BYTES = 4e9


@dataclasses.dataclass(frozen=True)
class Split:
  """Some images of a data set, in its order.

  Attributes:
    name: "train", "validation" or "test".
    source: random access to the encoded examples of the split on the disk.
    rows: where each image stands in `source`.
    label: its class.
    image_id: N names.
    box: (x, y, w, h), whole pixels inside the original.
    parts: (x, y, visible) in pixels of the original.
    image_size: S of the crops that the network sees.
    cache, key: where pixel files go, and what names them.
    scheme: which images are altered before they are resized, and how; None: none.
  """

  name: str
  source: Records | Sequence[dict]
  rows: Int[np.ndarray, " N"]
  label: Int[np.ndarray, " N"]
  image_id: list[str]
  box: Float32[np.ndarray, "N 4"]
  parts: Float32[np.ndarray, "N 15 3"]
  image_size: int
  cache: pathlib.Path
  key: str
  scheme: Scheme | None = None

  def __len__(self) -> int:
    return len(self.rows)

  def crop(self, i: int) -> Image.Image:
    """Image i cropped to its box at its own resolution."""
    image = decode.decode(self.source[int(self.rows[i])]["image"], self.image_id[i])
    return decode.crop(image, self.box[i])

  def altered_crop(self, i: int) -> Image.Image:
    """The same, altered, whether the scheme covers it or not; without a scheme, as it is."""
    crop = self.crop(i)
    return crop if self.scheme is None else self.scheme.apply(crop, int(self.rows[i]), 0)

  def altered(self, scheme: Scheme | None) -> "Split":
    """The same images, those that the scheme covers altered at their own resolution."""
    return dataclasses.replace(self, scheme=scheme)

  @functools.cached_property
  def pixels(self) -> UInt8[np.ndarray, "N S S 3"]:
    """The un-augmented crops, memory-mapped."""
    name = f"{self.name}-{pixels.fingerprint(*self._shaped_by(), self.image_size)}"
    return pixels.pixel_file(self.cache, name, len(self), self.image_size, self._plain)

  def _shaped_by(self) -> tuple:
    """What the pixels depend on, besides their size and augmentation."""
    if self.scheme is None or not (covered := self.scheme.covers(self.label)).any():
      return (self.key, self.rows.tolist())
    how = (self.scheme.name, self.scheme.parameter, self.scheme.code)
    return (self.key, self.rows.tolist(), *how, covered.tolist())

  def _plain(self, i: int) -> UInt8[np.ndarray, "S S 3"]:
    return self._resized(self.crop(i), i, 0)

  def augmented(self, i: int, copy: int, seed: int) -> UInt8[np.ndarray, "S S 3"]:
    """Augmented copy of image i; a pure function of its arguments."""
    image = augment.augment_copy(self.crop(i), seed=seed, index=int(self.rows[i]), copy=copy)
    return self._resized(image, i, copy + 1)

  def _resized(self, image: Image.Image, i: int, version: int) -> UInt8[np.ndarray, "S S 3"]:
    """An alteration acts before the resize, at the crop's own resolution."""
    if self.scheme and self.scheme.covers(self.label[i]):
      image = self.scheme.apply(image, int(self.rows[i]), version)
    return decode.resize(image, self.image_size)

  def stored_copies(self, copies: int, seed: int) -> UInt8[np.ndarray, "M S S 3"] | None:
    """All M = N * copies augmented copies, image by image; None if too large."""
    count = len(self) * copies
    if count * self.image_size**2 * 3 > MAX_STORED_COPIES_BYTES:
      return None
    what = (*self._shaped_by(), self.image_size, copies, seed)
    name = f"augmented-{pixels.fingerprint(*what)}"

    def render(j: int) -> UInt8[np.ndarray, "S S 3"]:
      return self.augmented(j // copies, j % copies, seed)

    return pixels.pixel_file(self.cache, name, count, self.image_size, render)

  def part_points(self, i: int) -> Float32[np.ndarray, "15 3"]:
    """Part locations (x, y, visible) of image i in pixels of its resized crop."""
    return decode.crop_points(self.parts[i], self.box[i], self.image_size)


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Train, validation and test splits, and the names of the C classes."""

  class_names: list[str]
  train: Split
  validation: Split
  test: Split

  @functools.cached_property
  def identity(self) -> str:
    """Names the classes, and the images of each split with labels and boxes, in their order."""
    digest = hashlib.sha256(repr(self.class_names).encode())
    for split in (self.train, self.validation, self.test):
      digest.update(repr((split.name, split.image_id, split.label.tolist())).encode())
      digest.update(split.box.tobytes())
    return digest.hexdigest()[:16]

  def altered(self, scheme: Scheme | None) -> "Dataset":
    """The same data set with all its splits altered by a scheme."""
    splits = {n: getattr(self, n).altered(scheme) for n in ("train", "validation", "test")}
    return dataclasses.replace(self, **splits)

  def at_size(self, image_size: int) -> "Dataset":
    """The same data set for a network that sees images of another size."""
    if image_size == self.train.image_size:
      return self
    names = ("train", "validation", "test")
    splits = {n: dataclasses.replace(getattr(self, n), image_size=image_size) for n in names}
    return dataclasses.replace(self, **splits)

  def split(self, name: str) -> Split:
    if name not in ("train", "validation", "test"):
      raise InputError(f"split={name!r} is not known; it must be train, validation or test")
    split = getattr(self, name)
    if not len(split):
      raise InputError(f"the {name} split is empty; this run set data.validation_share to 0")
    return split


def default_cache() -> pathlib.Path:
  """$JPROTOP_CACHE, or ~/.cache/jprotop."""
  return user_path(os.environ.get("JPROTOP_CACHE", "~/.cache/jprotop"))


def load_dataset(
  name: str,
  *,
  directory: str = "",
  image_size: int,
  validation_share: float = 0.1,
  seed: int = 0,
  cache: str | os.PathLike = "",
  toy: dict | None = None,
  twins: bool = False,
) -> Dataset:
  """Opens a data set, preparing it in the cache the first time.

  Args:
    name: one of sources.SOURCES.
    directory: the CUB_200_2011 folder or .tgz, or a user's folder.
    image_size: S, in pixels.
    validation_share: of the training images of each class, drawn from `seed`; may be 0.
    cache: folder for prepared data; "" is `default_cache()`.
    toy: num_classes, images_per_class, size and seed of ToyBirds.
    twins: split each class into two twins, drawn from `seed`; see `data.twins`.

  Raises:
    InputError: something is missing, corrupt or inconsistent; nothing half-made is left.
  """
  cache = user_path(cache) if cache else default_cache()
  source = open_source(name, directory, {"toy": toy or {}}, cache)
  prepared = Prepared(name, source, _fingerprint(source), cache)
  class_names = twin_names(source.class_names) if twins else source.class_names
  train, test = (_split(prepared, split, image_size) for split in ("train", "test"))
  if twins:
    train, test = (_with_twins(split, seed, i) for i, split in enumerate((train, test)))
  train, validation = _hold_out(train, validation_share, seed)
  empty = [n for label, n in enumerate(class_names) if not (train.label == label).any()]
  if empty:
    raise InputError(
      f"classes without a training image: {', '.join(empty[:10])}; add images, or lower "
      f"data.validation_share={validation_share}"
    )
  return Dataset(class_names, train, validation, test)


def _fingerprint(source: Source) -> str:
  # `decode` made the boxes that are stored, and accepted the pictures.
  everything = f"{inspect.getsource(decode)}{source.fingerprint}"
  return hashlib.sha256(everything.encode()).hexdigest()[:16]


def _split(prepared: Prepared, name: str, image_size: int) -> Split:
  columns = prepared.annotations(name)
  count = len(columns["label"])
  return Split(
    name=name,
    source=Records(prepared, name, count),
    rows=np.arange(count),
    label=columns["label"].astype(np.int32),
    image_id=columns["image_id"].tolist(),
    box=columns["box"],
    parts=columns["parts"],
    image_size=image_size,
    cache=prepared.cache,
    key=f"{prepared.name}/{prepared.folder.parent.name}/{name}",
  )


def _with_twins(split: Split, seed: int, number: int) -> Split:
  return dataclasses.replace(split, label=twin_labels(split.label, seed=seed, split=number))


def _hold_out(train: Split, share: float, seed: int) -> tuple[Split, Split]:
  """Takes a share of each class's images out for validation; the order stays."""
  if not 0 <= share < 1:
    raise InputError(f"data.validation_share={share} is outside [0, 1); the default is 0.1")
  rng = np.random.default_rng([seed, 1])
  held_out = np.zeros(len(train), bool)
  for label in np.unique(train.label):
    images = np.flatnonzero(train.label == label)
    held_out[rng.permutation(images)[: round(share * len(images))]] = True
  return _take(train, ~held_out, "train"), _take(train, held_out, "validation")


def _take(split: Split, chosen: Bool[np.ndarray, " N"], name: str) -> Split:
  return dataclasses.replace(
    split,
    name=name,
    rows=split.rows[chosen],
    label=split.label[chosen],
    image_id=[i for i, c in zip(split.image_id, chosen) if c],
    box=split.box[chosen],
    parts=split.parts[chosen],
  )
