"""ProtoPNet: normalise -> backbone -> add-on layers -> prototypes -> last layer (Section 2.1)."""

import functools
from collections.abc import Mapping, Sequence

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from jprotop.errors import InputError
from jprotop.models.densenet import DENSENETS, DenseNet
from jprotop.models.layers import LayerOptions, conv
from jprotop.models.resnet import RESNETS, ResNet
from jprotop.models.vgg import VGG, VGGS
from jprotop.similarity import (
  DISTANCES,
  SIMILARITIES,
  first_max,
  similarity_from_squared,
  squared_distances,
)

# ImageNet's statistics, which all published backbones expect.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)

BACKBONES = {
  **{name: functools.partial(ResNet, **fields) for name, fields in RESNETS.items()},
  **{name: functools.partial(VGG, **fields) for name, fields in VGGS.items()},
  **{name: functools.partial(DenseNet, **fields) for name, fields in DENSENETS.items()},
}
ADDONS = ("regular", "bottleneck")


@flax.struct.dataclass
class Output:
  """Everything one forward pass knows.

  Attributes:
    logits: [N, C].
    activations: [N, P], the maximum of each similarity map.
    similarity_map: [N, h, w, P].
    sq_dist: [N, h, w, P] squared L2 distances.
    latent: [N, h, w, D].
  """

  logits: jax.Array
  activations: jax.Array
  similarity_map: jax.Array
  sq_dist: jax.Array
  latent: jax.Array


def normalise(images: jax.Array) -> jax.Array:
  """Images [..., 3] in [0, 1] to what the backbones expect."""
  mean, std = (jnp.broadcast_to(jnp.array(x), images.shape) for x in (PIXEL_MEAN, PIXEL_STD))
  return (images - mean) / std


def add_on_widths(kind: str, channels: int, depth: int) -> list[int]:
  """Output channels of the add-on's convolutions, of a backbone with so many channels.

  "regular": two of D. "bottleneck": pairs, each of max(D, in // 2), until D is reached.
  """
  if kind == "regular":
    return [depth, depth]
  widths: list[int] = []
  while channels > depth or not widths:
    channels = max(depth, channels // 2)
    widths += [channels, channels]
  return widths


class AddOn(nn.Module):
  """1x1 convolutions from the backbone's channels to D, ending in a sigmoid.

  Convolutions are named by their index in the reference's list: conv0, conv2, ...
  """

  depth: int
  kind: str
  options: LayerOptions

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    widths = add_on_widths(self.kind, x.shape[-1], self.depth)
    for i, width in enumerate(widths):
      x = conv(width, 1, use_bias=True, options=self.options, name=f"conv{2 * i}")(x)
      x = nn.sigmoid(x) if i == len(widths) - 1 else nn.relu(x)
    return x


class ProtoPNet(nn.Module):
  """The network of Chen et al. (2019). Images come as [N, H, W, 3] in [0, 1].

  Attributes:
    backbone: a name in BACKBONES.
    num_classes: C.
    prototype_class: the class of each of the P prototypes.
    prototype_depth: D.
    addon: a name in ADDONS.
    similarity, distance: names in similarity.SIMILARITIES and similarity.DISTANCES.
    options: compute dtype and forms of the layers.
  """

  backbone: str
  num_classes: int
  prototype_class: tuple[int, ...]
  prototype_depth: int = 128
  addon: str = "regular"
  similarity: str = "log"
  distance: str = "squared_l2"
  options: LayerOptions = LayerOptions()

  def setup(self):
    self.features = BACKBONES[self.backbone](options=self.options)
    self.add_on = AddOn(self.prototype_depth, self.addon, self.options)
    shape = (len(self.prototype_class), self.prototype_depth)
    self.prototypes = self.param("prototypes", nn.initializers.uniform(1.0), shape)
    self.last_layer = self.param("last_layer", self._initial_last_layer)

  def _initial_last_layer(self, _):
    """+1 from a prototype to its own class, -0.5 to the others; [P, C]."""
    own = np.array(self.prototype_class)[:, None] == np.arange(self.num_classes)
    return jnp.asarray(np.where(own, 1.0, -0.5), jnp.float32)

  def __call__(self, images, train: bool = False, mask: jax.Array | None = None) -> Output:
    """One forward pass; `train` makes batch norm use, and update, the batch's statistics."""
    return self.from_latent(self.latent(images, train, mask))

  def latent(self, images, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
    """Latent patches, float32 [N, h, w, D]. Images whose `mask` [N] is 0 are padding."""
    x = normalise(images).astype(self.options.dtype)
    return self.add_on(self.features(x, train, mask)).astype(jnp.float32)

  def from_latent(self, latent: jax.Array) -> Output:
    """Everything that follows from latent patches [N, h, w, D]."""
    sq_dist = squared_distances(latent, self.prototypes)
    maps = self.similarity_of(sq_dist)
    activations = first_max(maps)
    logits = self.logits_of(activations)
    return Output(logits, activations, maps, sq_dist, latent)

  def similarity_of(self, sq_dist: jax.Array) -> jax.Array:
    """Similarity of squared distances of any shape, as this network is set up."""
    return similarity_from_squared(sq_dist, similarity=self.similarity, distance=self.distance)

  def logits_of(self, activations: jax.Array) -> jax.Array:
    """Class scores [N, C] of prototype activations [N, P]."""
    return jnp.dot(activations, self.last_layer, precision=jax.lax.Precision.HIGHEST)


class BackboneClassifier(nn.Module):
  """The backbone under a plain linear classifier: a start where no pretrained weights are had."""

  backbone: str
  num_classes: int
  options: LayerOptions = LayerOptions()

  @nn.compact
  def __call__(self, images, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
    """Logits [N, C] from the mean over all cells of the backbone's output."""
    x = normalise(images).astype(self.options.dtype)
    x = BACKBONES[self.backbone](options=self.options, name="features")(x, train, mask)
    return nn.Dense(self.num_classes, name="classifier")(x.mean(axis=(1, 2)).astype(jnp.float32))


def check_model_names(*, backbone: str, addon: str, similarity: str, distance: str) -> None:
  """Raises InputError, listing what is allowed, where a name is not known."""
  allowed = {
    "backbone": (backbone, BACKBONES),
    "addon": (addon, ADDONS),
    "similarity": (similarity, SIMILARITIES),
    "distance": (distance, DISTANCES),
  }
  for field, (given, names) in allowed.items():
    if given not in names:
      raise InputError(
        f"model.{field}={given!r} is not known; it must be one of {', '.join(sorted(names))}"
      )


@functools.lru_cache
def grid_of(model: ProtoPNet, image_size: int) -> tuple[int, int]:
  """(h, w) of the latent grid for square images of `image_size` pixels; nothing is computed."""
  shape = jax.eval_shape(
    lambda: model.init_with_output(
      jax.random.key(0), jnp.zeros((1, image_size, image_size, 3)), method=ProtoPNet.latent
    )
  )[0].shape
  return shape[1:3]


def make_model(
  fields: Mapping, num_classes: int, prototype_class: Sequence[int] | None = None
) -> ProtoPNet:
  """The network of a config's `model` section.

  Args:
    fields: the section.
    num_classes: C.
    prototype_class: the class of each prototype, where they were pruned; by default every class has
      `prototypes_per_class` of them.

  Raises:
    InputError: a name or a number that is not allowed.
  """
  names = {key: fields[key] for key in ("backbone", "addon", "similarity", "distance")}
  check_model_names(**names)
  for key in ("prototypes_per_class", "prototype_depth"):
    if fields[key] < 1:
      raise InputError(f"model.{key}={fields[key]} must be at least 1")
  if fields["dtype"] not in ("float32", "bfloat16"):
    raise InputError(f"model.dtype={fields['dtype']!r} must be float32 or bfloat16")
  if prototype_class is None:
    prototype_class = np.repeat(np.arange(num_classes), fields["prototypes_per_class"]).tolist()
  return ProtoPNet(
    num_classes=num_classes,
    prototype_class=tuple(prototype_class),
    prototype_depth=fields["prototype_depth"],
    options=LayerOptions(dtype=jnp.dtype(fields["dtype"])),
    **names,
  )


def check_variables(model: ProtoPNet, variables: dict, image_size: int) -> None:
  """Raises InputError, listing them, where arrays are missing, not used, or of another shape."""
  image = jnp.zeros((1, image_size, image_size, 3))
  wanted = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), image), sep="/")
  found = flatten_dict({k: v for k, v in variables.items() if v}, sep="/")
  problems = [f"missing: {name}" for name in wanted.keys() - found.keys()]
  problems += [f"not used: {name}" for name in found.keys() - wanted.keys()]
  problems += [
    f"{name}: shape {found[name].shape} where {wanted[name].shape} is needed"
    for name in wanted.keys() & found.keys()
    if found[name].shape != wanted[name].shape
  ]
  if problems:
    raise InputError(
      "the arrays do not fit this network; check backbone, add-on, and the numbers of classes and "
      "prototypes:\n  " + "\n  ".join(sorted(problems))
    )
