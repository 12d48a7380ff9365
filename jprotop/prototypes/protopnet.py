"""ProtoPNet: normalise -> backbone -> add-on layers -> prototypes -> last layer (Section 2.1)."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from jprotop.errors import InputError
from jprotop.networks.backbone import normalise
from jprotop.networks.families import check_backbone, make_backbone
from jprotop.networks.layers import LayerOptions, conv
from jprotop.prototypes.heads import Head, Output, make_head
from jprotop.prototypes.similarity import first_max

ADDONS = ("regular", "bottleneck")


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
  def __call__(self, x: Float[Array, "N h w F"]) -> Float[Array, "N h w {self.depth}"]:
    widths = add_on_widths(self.kind, x.shape[-1], self.depth)
    for i, width in enumerate(widths):
      x = conv(width, 1, use_bias=True, options=self.options, name=f"conv{2 * i}")(x)
      x = nn.sigmoid(x) if i == len(widths) - 1 else nn.relu(x)
    return x


class ProtoPNet(nn.Module):
  """The network of Chen et al. (2019). Images come in [0, 1].

  Attributes:
    backbone: a name in networks.families.BACKBONES.
    num_classes: C.
    prototype_class: the class of each of the P prototypes.
    prototype_depth: D.
    addon: a name in ADDONS.
    similarity, distance: names in heads.HEADS and similarity.DISTANCES, which give its `head`.
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

  if TYPE_CHECKING:  # Flax makes it, of the fields.

    def __hash__(self) -> int: ...

  def setup(self):
    self.features = make_backbone(self.backbone, options=self.options)
    self.add_on = AddOn(self.prototype_depth, self.addon, self.options)
    shape = (len(self.prototype_class), self.prototype_depth)
    self.prototypes = self.param("prototypes", nn.initializers.uniform(1.0), shape)
    self.last_layer = self.param("last_layer", self._initial_last_layer)

  @property
  def head(self) -> Head:
    """What its prototypes are to the rest: maps, costs, nearness and push."""
    return make_head(self.similarity, self.distance)

  def _initial_last_layer(self, _) -> Float32[Array, "P C"]:
    """+1 from a prototype to its own class, -0.5 to the others."""
    own = np.array(self.prototype_class)[:, None] == np.arange(self.num_classes)
    return jnp.asarray(np.where(own, 1.0, -0.5), jnp.float32)

  def __call__(
    self,
    images: Float[Array | np.ndarray, "N H W 3"],
    train: bool = False,
    mask: Float[Array, " N"] | None = None,
    frozen: int = 0,
  ) -> Output:
    """One forward pass; `train` makes batch norm use, and update, the batch's statistics.

    That of the backbone's first `frozen` parts does not (see `networks.families`).
    """
    return self.from_front(self.front(images, frozen), train, mask, frozen)

  def front(
    self, images: Float[Array | np.ndarray, "N H W 3"], frozen: int
  ) -> Float[Array, "N g1 g2 F"]:
    """What the first `frozen` parts of the backbone, as they are, make of images."""
    x = normalise(images, self.backbone).astype(self.options.dtype)
    return self.features(x, stop=frozen) if frozen else x

  def from_front(
    self,
    x: Float[Array, "N g1 g2 F"],
    train: bool = False,
    mask: Float[Array, " N"] | None = None,
    frozen: int = 0,
  ) -> Output:
    """Everything that follows from what `front` returns."""
    return self.from_latent(self._latent_of_front(x, train, mask, frozen))

  def latent(
    self,
    images: Float[Array | np.ndarray, "N H W 3"],
    train: bool = False,
    mask: Float[Array, " N"] | None = None,
  ) -> Float32[Array, "N h w D"]:
    """Latent patches. Images whose `mask` is 0 are padding."""
    return self._latent_of_front(self.front(images, 0), train, mask, 0)

  def _latent_of_front(self, x, train, mask, frozen) -> Float32[Array, "N h w D"]:
    rest = {"start": frozen} if frozen else {}
    return self.add_on(self.features(x, train, mask, **rest)).astype(jnp.float32)

  def from_latent(self, latent: Float[Array, "N h w D"]) -> Output:
    """Everything that follows from latent patches."""
    sq_dist, maps = self.head.maps(latent, self.prototypes)
    activations = first_max(maps)
    logits = self.logits_of(activations)
    return Output(logits, activations, maps, sq_dist, latent)

  def logits_of(self, activations: Float[Array, "N P"]) -> Float[Array, "N C"]:
    """Class scores of prototype activations."""
    return jnp.dot(activations, self.last_layer, precision=jax.lax.Precision.HIGHEST)


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
  check_backbone(names["backbone"])
  if names["addon"] not in ADDONS:
    raise InputError(
      f"model.addon={names['addon']!r} is not known; it must be one of {', '.join(sorted(ADDONS))}"
    )
  make_head(names["similarity"], names["distance"])
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


def _shapes(variables: Any) -> dict[str, tuple[int, ...]]:
  """Shapes of a tree of arrays by their names, as params/last_layer."""
  leaves = jax.tree_util.tree_leaves_with_path(variables)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves
  }


def check_variables(model: ProtoPNet, variables: dict, image_size: int) -> None:
  """Raises InputError, listing them, where arrays are missing, not used, or of another shape."""
  image = jnp.zeros((1, image_size, image_size, 3))
  wanted = _shapes(jax.eval_shape(model.init, jax.random.key(0), image))
  found = _shapes(variables)
  problems = [f"missing: {name}" for name in wanted.keys() - found.keys()]
  problems += [f"not used: {name}" for name in found.keys() - wanted.keys()]
  problems += [
    f"{name}: shape {found[name]} where {wanted[name]} is needed"
    for name in wanted.keys() & found.keys()
    if found[name] != wanted[name]
  ]
  if problems:
    raise InputError(
      "the arrays do not fit this network; check backbone, add-on, and the numbers of classes and "
      "prototypes:\n  " + "\n  ".join(sorted(problems))
    )
