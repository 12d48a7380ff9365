"""Heads: what a prototype layer is to the rest of the library.

Training, push, attacks and explanations ask a head for maps, costs and nearness; which distance or
similarity they come from, only the head knows. Another one is one more file, imported before its
name is used as config.train.model.similarity:

    from jprotop.prototypes.heads import Head, register_head

    register_head("my_similarity", MyHead)
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.struct
import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jprotop.errors import InputError
from jprotop.prototypes import losses
from jprotop.prototypes.similarity import (
  DISTANCES,
  SIMILARITIES,
  exact_squared_distance,
  first_max,
  similarity_from_squared,
  squared_distances,
)


@flax.struct.dataclass
class Output:
  """Everything one forward pass knows.

  Attributes:
    logits: class scores.
    activations: the maximum of each similarity map.
    similarity_map: of each prototype at each cell.
    sq_dist: squared L2 distances.
    latent: the latent patches.
  """

  logits: Float[Array, "N C"]
  activations: Float[Array, "N P"]
  similarity_map: Float[Array, "N h w P"]
  sq_dist: Float[Array, "N h w P"]
  latent: Float[Array, "N h w D"]


class Head:
  """A prototype layer without its arrays; equal heads must be equal and have the same hash.

  Only `maps` must be written; the rest is ProtoPNet's.
  """

  def maps(
    self, latent: Float[Array, "*n D"], prototypes: Float[Array, "P D"]
  ) -> tuple[Float[Array, "*n P"], Float[Array, "*n P"]]:
    """Squared distances and similarities of latent patches to prototypes."""
    raise NotImplementedError

  def map_of(
    self, latent: Float[Array, "N h w D"], prototype: Float[Array, "N D"]
  ) -> Float[Array, "N h w"]:
    """Similarity map of each latent to a prototype of its own."""
    _, maps = jax.vmap(self.maps)(latent, prototype[:, None, :])
    return maps[..., 0]

  def nearness(self, out: Output) -> Float[Array, "N h w P"]:
    """What ranks patches where the nearest is sought: the greater, the nearer."""
    return -out.sq_dist

  def costs(
    self,
    out: Output,
    label: Int[Array, " N"],
    prototype_class: Int[Array, " P"],
    *,
    cap: float | None = None,
  ) -> tuple[Float[Array, " N"], Float[Array, " N"]]:
    """Cluster and separation cost of images of these classes; see `losses`."""
    distance = -first_max(self.nearness(out))
    return (
      losses.cluster_cost(distance, label, prototype_class, cap=cap),
      losses.separation_cost(distance, label, prototype_class, cap=cap),
    )

  def pushed(self, patches: Float[Array, "P D"]) -> Float[Array, "P D"]:
    """The prototypes that stand for latent patches."""
    return patches

  def moved(
    self, patches: Float[Array | np.ndarray, "P D"], prototypes: Float[Array | np.ndarray, "P D"]
  ) -> Float[Array, " P"]:
    """How far a push moves prototypes to get to patches: squared distances."""
    return exact_squared_distance(patches, prototypes)


@dataclasses.dataclass(frozen=True)
class DistanceHead(Head):
  """ProtoPNet's: a similarity that falls with the L2 distance.

  Attributes:
    similarity, distance: names in similarity.SIMILARITIES and similarity.DISTANCES.
  """

  similarity: str
  distance: str

  def maps(
    self, latent: Float[Array, "*n D"], prototypes: Float[Array, "P D"]
  ) -> tuple[Float[Array, "*n P"], Float[Array, "*n P"]]:
    sq_dist = squared_distances(latent, prototypes)
    return sq_dist, similarity_from_squared(
      sq_dist, similarity=self.similarity, distance=self.distance
    )


# By the name that config.train.model.similarity has, from the name that its distance has.
HEADS: dict[str, Callable[[str], Head]] = {
  name: functools.partial(DistanceHead, name) for name in SIMILARITIES
}


def register_head(name: str, make: Callable[[str], Head]) -> None:
  """Makes a head known as a config's model.similarity.

  Args:
    make: from a config's model.distance, a name in similarity.DISTANCES, to the head.

  Raises:
    InputError: the name is taken.
  """
  if name in HEADS:
    raise InputError(f"a similarity named {name} is registered already; choose another name")
  HEADS[name] = make


def make_head(similarity: str, distance: str) -> Head:
  """The head of a config's names; InputError, which lists what is allowed, for another one."""
  allowed = {"similarity": (similarity, HEADS), "distance": (distance, DISTANCES)}
  for field, (given, names) in allowed.items():
    if given not in names:
      raise InputError(
        f"model.{field}={given!r} is not known; it must be one of {', '.join(sorted(names))}"
      )
  return HEADS[similarity](distance)
