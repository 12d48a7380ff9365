"""Backbones by name: each file of one ends in its `Family`, and all others read what is registered.

Another backbone is one more file, inside the library or not, that is imported before its name is
used as config.train.model.backbone:

    from jprotop.networks.families import Family, register

    register(Family({"my_network": MyNetwork}))

A network is a flax module with a field `options`, a `layers.LayerOptions`. It is called with
normalised images [N, H, W, 3], `train`, and `mask` [N] (0: padding), and returns [N, h, w, F].

One that can be taken apart, so that its first layers stay as they are in training, has `parts`, a
tuple of the layers' names in each, and may be called with `start` and `stop`: from what the parts
before `start` return, to what those before `stop` do.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from jprotop.errors import InputError

_TORCHVISION = "https://download.pytorch.org/models/"


class WeightFile(NamedTuple):
  """A published file of a network's weights: its address and SHA256, or how that begins."""

  url: str
  sha256: str


def torchvision_file(name: str) -> WeightFile:
  """A file as torchvision publishes them: eight digits of the hash end its name."""
  return WeightFile(_TORCHVISION + name, pathlib.PurePath(name).stem.rpartition("-")[2])


class PackagedFile(NamedTuple):
  """A file of a network's weights in a package of pip's: that and its version, where, SHA256."""

  package: str
  version: str
  path: str
  sha256: str


class Normalisation(NamedTuple):
  """What a family's networks expect of the three colours of images in [0, 1]: (x - mean) / std."""

  mean: tuple[float, float, float]
  std: tuple[float, float, float]


# ImageNet's statistics, which torchvision's networks expect.
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def without_classifier(name: str, network: str) -> str | None:
  """What a file of torchvision has of a backbone: all but its classifier."""
  return None if re.match(r"(fc|classifier)\.", name) else name


@dataclasses.dataclass(frozen=True)
class Names:
  """How PyTorch's state dicts name the arrays of a family's networks.

  Attributes:
    to_torch: from an array's place in our tree, its modules joined by dots and its last part as
      PyTorch has it (layer1_0.conv2.weight), to its name in torchvision's network.
    mark: a regular expression that a family's state dicts are known by: more of their names begin
      so than of any other family's.
    of_file: (a name in a published file, the network that it is read for) to the name in
      torchvision's network; None: that array has no part in a backbone.
  """

  to_torch: Callable[[str], str]
  mark: str
  of_file: Callable[[str, str], str | None] = without_classifier


@dataclasses.dataclass(frozen=True)
class Family:
  """Networks of one kind.

  Attributes:
    networks: constructors by name.
    names: of their arrays in PyTorch's files; None: they cannot be imported from there.
    weights: published files by a network's name, for those that have one.
    packages: files in packages likewise.
    normalisation: of the images that its networks are called with.
  """

  networks: Mapping[str, Callable[..., nn.Module]]
  names: Names | None = None
  weights: Mapping[str, WeightFile] = dataclasses.field(default_factory=dict)
  packages: Mapping[str, PackagedFile] = dataclasses.field(default_factory=dict)
  normalisation: Normalisation = IMAGENET


FAMILIES: list[Family] = []
# All their networks, by name; `register` adds to both.
BACKBONES: dict[str, Callable[..., nn.Module]] = {}


def register(family: Family) -> Family:
  """Makes a family's networks known by their names; returns it.

  Raises:
    InputError: a name is taken, or there are weights of a network that the family has not.
  """
  if taken := [name for name in family.networks if name in BACKBONES]:
    raise InputError(
      f"a backbone named {', '.join(taken)} is registered already; choose another name"
    )
  if unknown := [n for n in [*family.weights, *family.packages] if n not in family.networks]:
    raise InputError(
      f"weights are given for {', '.join(unknown)}, but the family has only "
      f"{', '.join(family.networks)}"
    )
  FAMILIES.append(family)
  BACKBONES.update(family.networks)
  return family


def check_backbone(name: str) -> None:
  """InputError, which lists what is allowed, where no backbone has that name."""
  if name not in BACKBONES:
    raise InputError(
      f"train.model.backbone={name!r} is not known; it must be one of "
      f"{', '.join(sorted(BACKBONES))}"
    )


def make_backbone(backbone: str, **fields: Any) -> nn.Module:
  """The module of a backbone; `fields` are its `options`, and its `name` within another module."""
  check_backbone(backbone)
  return BACKBONES[backbone](**fields)


def first_parts(backbone: str, count: int) -> tuple[tuple[str, ...], ...]:
  """Names of the layers in each of the first `count` parts of a backbone.

  Raises:
    InputError: it has not so many parts and one that is left, or cannot be taken apart.
  """
  parts = getattr(make_backbone(backbone), "parts", ())
  if count and not 0 < count < len(parts):
    allowed = f"be 0 to {len(parts) - 1}" if parts else "be 0, as it cannot be taken apart"
    raise InputError(f"train.frozen.parts={count}: for {backbone} it must {allowed}")
  return parts[:count]


def family_of(backbone: str) -> Family:
  """The family that a backbone is of."""
  check_backbone(backbone)
  return next(family for family in FAMILIES if backbone in family.networks)


def published_weights() -> dict[str, WeightFile]:
  """The files of all families by their networks' names."""
  return {name: file for family in FAMILIES for name, file in family.weights.items()}


def packaged_weights() -> dict[str, PackagedFile]:
  """The files in packages of all families by their networks' names."""
  return {name: file for family in FAMILIES for name, file in family.packages.items()}


def family_of_names(names: Collection[str]) -> tuple[Family, float]:
  """The family that most of a state dict's names speak for (of equals the first); their share."""

  def speak(family: Family) -> int:
    return sum(bool(family.names and re.match(family.names.mark, name)) for name in names)

  most = max(FAMILIES, key=speak)
  return most, speak(most) / max(len(names), 1)
