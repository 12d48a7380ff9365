"""Where images come from: what every data set is to the rest, and the data sets that there are.

A data set is one file that ends in `register_source(name, open_source)`.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jprotop.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """Encoded images with their labels, before anything is decoded.

  Attributes:
    class_names: of the C classes.
    counts: {"train": images, "test": images}.
    fingerprint: names everything that shaped the examples: another one is another data set.
    examples: from "train" or "test" to an iterator of {"image": bytes of a file that Pillow reads,
      "image_id": text, "label": int, "box": (x, y, w, h) in pixels, or None for the whole image,
      "parts": float32 [15, 3] (x, y, visible), zeros where they are not known}, in their order.
  """

  class_names: list[str]
  counts: dict[str, int]
  fingerprint: str
  examples: Callable[[str], Iterator[dict]]


# (config.data.dir, the section config.train.data, the cache) to a Source.
Open = Callable[[str, Mapping[str, Any], pathlib.Path], Source]
SOURCES: dict[str, Open] = {}


def register_source(name: str, open_source: Open) -> None:
  """Adds a data set, which config.train.data.name then names.

  Raises:
    InputError: there is one of that name.
  """
  if name in SOURCES:
    raise InputError(f"there is a data set {name!r} already; choose another name")
  if not name.isidentifier():
    raise InputError(f"the data set's name {name!r} must be letters, digits and _")
  SOURCES[name] = open_source


def open_source(
  name: str, directory: str, settings: Mapping[str, Any], cache: pathlib.Path
) -> Source:
  """The data set of that name; InputError, which lists them, if there is none."""
  if name not in SOURCES:
    raise InputError(
      f"train.data.name={name!r} is not known; it must be one of {', '.join(SOURCES)}"
    )
  return SOURCES[name](directory, settings, cache)
