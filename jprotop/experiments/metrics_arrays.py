"""Arrays of a network from elsewhere, as `jprotop metrics --maps=FILE.npz` reads them."""

import pathlib
from collections.abc import Iterator, Mapping

import numpy as np

from jprotop.errors import InputError, excerpt
from jprotop.experiments.metrics_numbers import Batch, Whole
from jprotop.files import check_regular
from jprotop.metrics import checks
from jprotop.metrics.maps import own_of, own_prototypes, strongest, take
from jprotop.metrics.prototype_purity import patch_peaks
from jprotop.metrics.quanproto import NUM_PROTOTYPES

NEEDED = ("maps", "labels", "prototype_class")
OPTIONAL = ("noisy_maps", "parts", "masks", "weights", "pairs", "image_size")
_AT_ONCE = 100  # images


def read_file(path: pathlib.Path) -> tuple[Whole, Iterator[Batch]]:
  """What a file says of all images, and their maps a batch at a time.

  Raises:
    InputError: it is no such file, an array is missing, unknown, or does not fit the others.
  """
  arrays = _arrays(path)
  unknown = sorted(arrays.keys() - {*NEEDED, *OPTIONAL})
  missing = [name for name in NEEDED if name not in arrays]
  if missing or unknown:
    lacks = f"lacks {', '.join(missing)}" if missing else f"holds {', '.join(unknown)} too"
    raise InputError(
      f"{path} {lacks}; it must have {', '.join(NEEDED)}, and may have {', '.join(OPTIONAL)}"
    )
  return _check(arrays), _batches(arrays)


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    check_regular(path)
    with np.load(path, allow_pickle=False) as file:
      arrays = dict(file)
  except Exception as error:  # NumPy and zipfile raise half a dozen kinds for a damaged file.
    raise InputError(
      f"--maps={path} cannot be read as arrays ({excerpt(error)}); write it with numpy.savez"
    ) from error
  for name, array in arrays.items():
    if array.dtype.kind not in "biuf":
      raise InputError(f"{name} in {path} is of type {array.dtype}; give real numbers")
  return arrays


def _check(arrays: Mapping[str, np.ndarray]) -> Whole:
  """What all batches need is checked before the first of them is read."""
  maps = checks.maps(arrays["maps"])
  count, prototypes = len(maps), maps.shape[3]
  checks.labels(arrays["labels"], count)
  classes = checks.labels(arrays["prototype_class"], prototypes, "prototype_class")
  if "noisy_maps" in arrays:
    checks.same_grid(maps, arrays["noisy_maps"], "noisy_maps")
  if "parts" in arrays:
    checks.parts(arrays["parts"], count)
  if "masks" in arrays:
    checks.masks(arrays["masks"], count, _size(arrays))
  pairs = arrays.get("pairs", np.zeros((0, 2), int))
  if pairs.shape[1:] != (2,) or pairs.dtype.kind not in "iu":
    raise InputError(
      f"pairs is {pairs.dtype} of the shape {pairs.shape}; it must be [n, 2] integers, the left "
      "and the right part of each pair"
    )
  return Whole(
    prototype_class=classes,
    parts=arrays.get("parts"),
    released_parts=arrays.get("parts"),
    pairs=tuple((int(left), int(right)) for left, right in pairs),
    weights=arrays.get("weights"),
    image_size=_size(arrays),
  )


def _size(arrays: Mapping[str, np.ndarray]) -> int:
  size = arrays.get("image_size", np.array(224))
  if size.shape or size.dtype.kind not in "iu" or size < 1:
    raise InputError(f"image_size is {size.tolist()}; it must be one whole number of pixels")
  return int(size)


def _batches(arrays: Mapping[str, np.ndarray]) -> Iterator[Batch]:
  maps, labels, classes = (arrays[name] for name in NEEDED)
  table = own_prototypes(classes)
  for first in range(0, len(maps), _AT_ONCE):
    rows = slice(first, first + _AT_ONCE)
    own = own_of(labels[rows], table)
    given = {name: arrays[name][rows] if name in arrays else None for name in OPTIONAL[:3]}
    noisy = given["noisy_maps"]
    yield Batch(
      first=first,
      own=take(maps[rows], own),
      top=strongest(maps[rows], NUM_PROTOTYPES),
      noisy=None if noisy is None else take(noisy, own),
      patches=patch_peaks(maps[rows]),
      parts=given["parts"],
      masks=given["masks"],
      image_size=_size(arrays),
    )
