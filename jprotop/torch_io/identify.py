"""Which network a ProtoPNet checkpoint holds: read from its names, shapes and values."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from jprotop.errors import InputError, excerpt
from jprotop.networks.families import family_of_names
from jprotop.prototypes.protopnet import ADDONS, ProtoPNet
from jprotop.prototypes.similarity import EPSILON, SIMILARITIES
from jprotop.torch_io import names
from jprotop.torch_io.torch_files import TorchFile


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
  prototype_class: Shaped[np.ndarray, "..."] | None = None,
  similarity: str | None = None,
) -> Identified:
  """The network of a checkpoint.

  Args:
    file: as `torch_files.read` returns it.
    prototype_class: where the file cannot tell; a whole module can, and must agree.
    similarity: "log" or "linear", likewise; None: the module's, else "log".

  Raises:
    InputError: no ProtoPNet, of another kind than jprotop has, or one that contradicts what is
      given.
  """
  count, depth, classes = _head(file.state)
  model = _nearest(file.state, count, depth, classes)
  nearest = f"{model.backbone} with {model.addon} add-on layers"
  what = f"any network that jprotop has; the nearest is {nearest}"
  names.check_fit(names.entries_of(model), file.state, what)
  labels, classes_from = _prototype_class(file, count, classes, prototype_class)
  similarity, similarity_from = _similarity(file.attributes, similarity)
  labels = tuple(int(label) for label in labels)
  model = model.clone(prototype_class=labels, similarity=similarity)
  return Identified(model, classes_from, similarity_from)


def _head(state: Mapping[str, np.ndarray]) -> tuple[int, int, int]:
  """P, D and C."""
  needed = ("prototype_vectors", "last_layer.weight")
  if missing := [name for name in needed if name not in state]:
    shown = ", ".join(excerpt(name, 100) for name in list(state)[:5])
    raise InputError(
      f"this is no ProtoPNet: it has no {' and no '.join(missing)}, but {shown}, ...; a backbone "
      "alone is a start for training, as in --config.train.init.backbone=FILE"
    )
  prototypes, last_layer = (state[name] for name in needed)
  if prototypes.ndim != 4 or prototypes.shape[2:] != (1, 1) or not prototypes.size:
    raise InputError(
      f"prototype_vectors has shape {prototypes.shape}; jprotop has prototypes of [P, D, 1, 1]"
    )
  if last_layer.ndim != 2 or not last_layer.size:
    raise InputError(f"last_layer.weight has shape {last_layer.shape}; it must be [C, P]")
  return len(prototypes), prototypes.shape[1], last_layer.shape[0]


def _nearest(state: Mapping[str, np.ndarray], count: int, depth: int, classes: int) -> ProtoPNet:
  """The network whose arrays are those of the file, or least different from them.

  Its prototypes are of class 0 yet. Where both add-ons have the same layers it is "regular".
  """
  start = "features."
  features = {n.removeprefix(start): a for n, a in state.items() if n.startswith(start)}

  def differences(backbone: str) -> int:
    return len(names.mismatches(names.backbone_entries(backbone), features))

  family, _ = family_of_names(features)
  backbone = min(family.networks, key=differences)
  network = functools.partial(ProtoPNet, backbone, classes, (0,) * count, depth)
  models = [network(addon) for addon in sorted(ADDONS, reverse=True)]
  return min(models, key=lambda model: len(names.mismatches(names.entries_of(model), state)))


def _similarity(attributes: Mapping[str, Any], given: str | None) -> tuple[str, str]:
  """The similarity function; a state dict does not tell."""
  saved, epsilon = attributes.get("prototype_activation_function"), attributes.get("epsilon")
  known = isinstance(epsilon, int | float) and np.isclose(epsilon, EPSILON)
  if epsilon is not None and not known:
    raise InputError(
      f"the module has epsilon={excerpt(epsilon)} in its similarity; jprotop has {EPSILON}"
    )
  sources = {"the module has prototype_activation_function": saved, "--similarity": given}
  for what, name in sources.items():
    if name is not None and not (isinstance(name, str) and name in SIMILARITIES):
      raise InputError(f"{what}={excerpt(name)!r}; jprotop knows {', '.join(sorted(SIMILARITIES))}")
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
  equal = np.arange(count) // max(count // classes, 1)
  differ = int((strongest != equal).sum())
  if differ and (np.diff(strongest) >= 0).all() and _is_clear(weights):
    return strongest, "the last layer's weights: the classes have unequal numbers"
  if count % classes == 0:
    doubt = f"; {differ} of {count} have their largest weight to another class" if differ else ""
    return equal, f"the equal share of {count // classes} a class, in order{doubt}"
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
