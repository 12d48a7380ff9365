"""Which network a ProtoPNet checkpoint holds: read from its names, shapes and values."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jprotop.errors import InputError
from jprotop.interchange import names
from jprotop.interchange.torch_files import TorchFile
from jprotop.models.densenet import DENSENETS
from jprotop.models.protopnet import ADDONS, ProtoPNet, add_on_widths
from jprotop.models.resnet import RESNETS
from jprotop.models.vgg import VGGS
from jprotop.similarity import EPSILON, SIMILARITIES


@dataclasses.dataclass(frozen=True)
class Identified:
  """A network, and how its less certain properties were found.

  Attributes:
    model: the network.
    classes_from, similarity_from: where the class of each prototype, and the similarity, come from.
  """

  model: ProtoPNet
  classes_from: str
  similarity_from: str


def identify(
  file: TorchFile,
  *,
  prototype_class: np.ndarray | None = None,
  similarity: str | None = None,
) -> Identified:
  """The network of a checkpoint.

  Args:
    file: as `torch_files.read` returns it.
    prototype_class: int [P], where the file cannot tell; a whole module can, and must agree.
    similarity: "log" or "linear", likewise; None: the module's, else "log".

  Raises:
    InputError: no ProtoPNet, of another kind than jprotop has, or one that contradicts what is
      given.
  """
  state = file.state
  count, depth, classes = _head(state)
  labels, classes_from = _prototype_class(file, count, classes, prototype_class)
  similarity, similarity_from = _similarity(file.attributes, similarity)
  model = ProtoPNet(
    backbone=_backbone(state),
    num_classes=classes,
    prototype_class=tuple(int(label) for label in labels),
    prototype_depth=depth,
    addon=_add_on(state, depth),
    similarity=similarity,
  )
  return Identified(model, classes_from, similarity_from)


def _head(state: Mapping[str, np.ndarray]) -> tuple[int, int, int]:
  """P, D and C."""
  needed = ("prototype_vectors", "last_layer.weight")
  if missing := [name for name in needed if name not in state]:
    shown = ", ".join(list(state)[:5])
    raise InputError(
      f"this is no ProtoPNet: it has no {' and no '.join(missing)}, but {shown}, ...; a backbone "
      "alone is a start for training, as in --config.init.backbone=FILE"
    )
  prototypes, last_layer = (state[name] for name in needed)
  if prototypes.ndim != 4 or prototypes.shape[2:] != (1, 1):
    raise InputError(
      f"prototype_vectors has shape {prototypes.shape}; jprotop has prototypes of [P, D, 1, 1]"
    )
  if last_layer.ndim != 2 or last_layer.shape[1] != len(prototypes) or not last_layer.size:
    raise InputError(
      f"last_layer.weight has shape {last_layer.shape}, which does not belong to "
      f"{len(prototypes)} prototypes"
    )
  return len(prototypes), prototypes.shape[1], last_layer.shape[0]


def _backbone(state: Mapping[str, np.ndarray]) -> str:
  """The backbone whose arrays are those of the file; an error lists what is different."""
  start = "features."
  shapes = {
    name.removeprefix(start): array.shape
    for name, array in state.items()
    if name.startswith(start) and not names.is_counter(name)
  }
  if "layer1.0.conv1.weight" in shapes:
    family = RESNETS
  else:
    family = DENSENETS if "features.conv0.weight" in shapes else VGGS
  found = {name: names.mismatches(names.backbone_entries(name), shapes) for name in family}
  nearest = min(found, key=lambda name: len(found[name]))
  if found[nearest]:
    raise InputError(
      f"the backbone is none of jprotop's; it differs from the nearest, {nearest}, in\n  features."
      + "\n  ".join(found[nearest])
    )
  return nearest


def _add_on(state: Mapping[str, np.ndarray], depth: int) -> str:
  """The kind of the add-on layers; where both have the same layers, "regular"."""
  kernels = []
  while (array := state.get(f"add_on_layers.{2 * len(kernels)}.weight")) is not None:
    kernels.append(array)
  widths = [kernel.shape[0] for kernel in kernels]
  channels = kernels[0].shape[1] if kernels and kernels[0].ndim == 4 else 0
  for kind in sorted(ADDONS, reverse=True):
    if widths == add_on_widths(kind, channels, depth):
      return kind
  raise InputError(
    f"the add-on layers have {widths or 'no'} channels; jprotop has 'regular' and 'bottleneck' "
    f"ones down to the prototypes' depth, which is {depth} here"
  )


def _similarity(attributes: Mapping[str, Any], given: str | None) -> tuple[str, str]:
  """The similarity function; a state dict does not tell."""
  saved, epsilon = attributes.get("prototype_activation_function"), attributes.get("epsilon")
  if epsilon is not None and not np.isclose(epsilon, EPSILON):
    raise InputError(f"the module has epsilon={epsilon} in its similarity; jprotop has {EPSILON}")
  if saved is not None and saved not in SIMILARITIES:
    raise InputError(
      f"the module has prototype_activation_function={saved!r}; jprotop knows "
      f"{', '.join(sorted(SIMILARITIES))}"
    )
  if given and saved and given != saved:
    raise InputError(f"--similarity={given} is given, but the module itself says {saved!r}")
  if saved:
    return saved, "the module"
  return (given, "as given") if given else ("log", "ProtoPNet's default; the file does not tell")


def _prototype_class(
  file: TorchFile, count: int, classes: int, given: np.ndarray | None
) -> tuple[np.ndarray, str]:
  """The class of each of `count` prototypes, int [P], and what says so."""
  identity = file.attributes.get("prototype_class_identity")
  if identity is not None:
    saved = _labels_of(np.asarray(identity), count, classes, "prototype_class_identity")
    if given is not None and not np.array_equal(_checked(given, count, classes), saved):
      raise InputError("--prototype_class contradicts the module's prototype_class_identity")
    return saved, "the module"
  if given is not None:
    return _checked(given, count, classes), "as given"
  weights = np.asarray(file.state["last_layer.weight"], np.float32)
  strongest = weights.argmax(axis=0)
  ordered = bool((np.diff(strongest) >= 0).all())
  equal = np.arange(count) // max(count // classes, 1)
  if count % classes == 0:
    if ordered and not np.array_equal(strongest, equal) and _is_clear(weights):
      return strongest, "the last layer's weights: the classes have unequal numbers"
    return equal, f"the equal share of {count // classes} a class, in order"
  if ordered and _is_clear(weights):
    return strongest, "the last layer's weights: the classes have unequal numbers"
  raise InputError(
    f"the file does not tell which of {count} prototypes belong to which of {classes} classes; "
    "give --prototype_class=FILE.npy, int [P]"
  )


def _is_clear(weights: np.ndarray) -> bool:
  """Whether each prototype speaks for one class, and hardly for any other; weights [C, P]."""
  second, first = (
    np.sort(weights, axis=0)[-2:] if len(weights) > 1 else (weights[0] - 1, weights[0])
  )
  return bool((first > 0).all() and (second < first / 2).all())


def _labels_of(identity: np.ndarray, count: int, classes: int, name: str) -> np.ndarray:
  """int [P] from a one-hot [P, C]."""
  one_hot = identity.shape == (count, classes) and (identity.sum(axis=1) == 1).all()
  if not one_hot or not np.isin(identity, (0, 1)).all():
    raise InputError(f"{name} of shape {identity.shape} does not give each prototype one class")
  return identity.argmax(axis=1)


def _checked(labels: np.ndarray, count: int, classes: int) -> np.ndarray:
  """Labels that were given for the prototypes, as int [P] or one-hot [P, C]."""
  labels = np.asarray(labels)
  if labels.shape == (count, classes):
    return _labels_of(labels, count, classes, "--prototype_class")
  if labels.shape != (count,) or labels.dtype.kind not in "iu":
    raise InputError(
      f"--prototype_class has {labels.dtype} {labels.shape}; it must be whole numbers [{count}]"
    )
  if labels.min() < 0 or labels.max() >= classes:
    raise InputError(f"--prototype_class must hold classes from 0 to {classes - 1}")
  return labels
