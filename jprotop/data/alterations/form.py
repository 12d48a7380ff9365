"""Alterations of images (Section 4; App. D): JPEG is one of those that there can be.

An alteration is one file that ends in `register_alteration(Alteration(...))`.
"""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float, Integer
from PIL import Image

from jprotop.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alteration:
  """One thing that can be done to an image, at its own resolution, before it is resized.

  Attributes:
    name: in config.train.alteration.name and in results.
    apply: (RGB image, parameter, random generator) to the altered RGB image of the same size. The
      generator is one for each image and copy of it.
    parameter: what its number is called, such as "quality".
    check: raises InputError for a number that makes no sense.
    mildest, strongest: the numbers between which `severity.matched` looks for one that costs an
      image as much as another alteration does; None: it is not asked to.
    whole: whether the number must be a whole one.
  """

  name: str
  apply: Callable[[Image.Image, float, np.random.Generator], Image.Image]
  parameter: str
  check: Callable[[float], None]
  mildest: float | None = None
  strongest: float | None = None
  whole: bool = False


ALTERATIONS: dict[str, Alteration] = {}


def register_alteration(alteration: Alteration) -> None:
  """Adds an alteration; InputError where there is one of that name."""
  if alteration.name in ALTERATIONS:
    raise InputError(f"there is an alteration {alteration.name!r} already; choose another name")
  ALTERATIONS[alteration.name] = alteration


def check_number(
  name: str, low: float, high: float, *, whole: bool = False
) -> Callable[[float], None]:
  """A `check` of numbers from low to high: the function raises InputError for any other."""

  def check(number: float) -> None:
    if not low <= number <= high or (whole and number != int(number)):
      kind = "a whole number" if whole else "a number"
      raise InputError(f"{name}={number!r} must be {kind} from {low:g} to {high:g}")

  return check


def to_array(image: Image.Image) -> Float[np.ndarray, "H W 3"]:
  """An RGB image in [0, 1]."""
  return np.asarray(image, np.float64) / 255


def to_image(x: Float[np.ndarray, "H W 3"]) -> Image.Image:
  """The RGB image of the nearest bytes; what lies outside [0, 1] is clipped."""
  return Image.fromarray(np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8))


@dataclasses.dataclass(frozen=True)
class Scheme:
  """Which images are altered, and how.

  Attributes:
    name: of the alteration.
    parameter: its number; for JPEG the quality, 1 to 95.
    classes: labels of the classes whose images are altered; None: every image.
  """

  name: str
  parameter: float
  classes: tuple[int, ...] | None = None

  def __post_init__(self):
    if self.name not in ALTERATIONS:
      raise InputError(
        f"alteration.name={self.name!r} is not known; it must be one of {', '.join(ALTERATIONS)}"
      )
    ALTERATIONS[self.name].check(self.parameter)

  def covers(self, label: Integer[np.ndarray, "*N"] | np.integer) -> Bool[np.ndarray, "*N"]:
    """Whether images of these labels are altered."""
    if self.classes is None:
      return np.ones(np.shape(label), bool)
    return np.isin(label, self.classes)

  def altered_classes(self, num_classes: int) -> tuple[int, ...]:
    """The labels of the classes whose images are altered."""
    return tuple(range(num_classes)) if self.classes is None else self.classes

  def of_every_class(self) -> "Scheme":
    """The same, of every image."""
    return dataclasses.replace(self, classes=None)

  def apply(self, image: Image.Image, *which: int) -> Image.Image:
    """The altered image; `which` numbers, such as its row and copy, say what is drawn for it."""
    rng = np.random.default_rng([9, *which])
    return ALTERATIONS[self.name].apply(image, self.parameter, rng)

  @property
  def code(self) -> str:
    """The source of what is done: a change of it makes other images."""
    return inspect.getsource(sys.modules[ALTERATIONS[self.name].apply.__module__])


def choose_classes(rule: str, num_classes: int, seed: int) -> tuple[int, ...]:
  """The classes that the experiment alters: "half" of them drawn from a seed (Section 4), "odd"
  labels counted from 0 (protocol `authors`), or labels such as "0,3,5".

  Raises:
    InputError: an unknown rule, an unknown label, no class, or all classes.
  """
  if rule == "half":
    drawn = np.random.default_rng([seed, 4]).permutation(num_classes)[: num_classes // 2]
    classes = tuple(sorted(drawn.tolist()))
  elif rule == "odd":
    classes = tuple(range(1, num_classes, 2))
  else:
    try:
      classes = tuple(sorted({int(item) for item in rule.split(",") if item.strip()}))
    except ValueError as error:
      raise InputError(
        f"alteration.classes={rule!r} must be half, odd, or labels such as 0,3,5"
      ) from error
  outside = [c for c in classes if not 0 <= c < num_classes]
  if outside:
    raise InputError(
      f"alteration.classes: label {outside[0]} does not exist; there are {num_classes} classes, 0 "
      f"to {num_classes - 1}"
    )
  if not 0 < len(classes) < num_classes:
    raise InputError(
      f"alteration.classes={rule!r} chooses {len(classes)} of {num_classes} classes; the "
      "experiment compares altered with other classes, so choose at least one and not all"
    )
  return classes


def scheme_of(settings: Mapping, protocol: str, num_classes: int, *, twins: bool = False) -> Scheme:
  """What images of a data set are altered by, and of which classes.

  Args:
    settings: an `alteration` section, of `train` or `measure`.
    twins: whether classes are those of `data.twins`, of which the odd ones are altered.
  """
  rule = settings["classes"]
  if rule == "default":
    rule = "odd" if protocol == "authors" or twins else "half"
  classes = choose_classes(str(rule), num_classes, settings["seed"])
  return Scheme(settings["name"], settings["parameter"], classes)
