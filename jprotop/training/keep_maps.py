"""The method `maps`: training that keeps the explanation.

Adversarial training raises the cross entropy to find its noise, so it asks that the class stays,
and not that the explanation does. Here the loss is that of the clean images plus

    weight * max over |x' - x| <= eps of change(maps of x, maps of x'),

where the maps are those of the prototypes of the image's class, and the change is the mean over
them of 1 minus the correlation of the two maps over their cells: 0 where they are alike but for a
shift and a scale, 1 where they have nothing in common, 2 where they are opposite. The maximum is
sought by PGD from a random start (`num_steps` of `step_size`; 3 to 7 steps are enough to move a
map). This is TRADES (Zhang et al. 2019) with maps in place of class scores.

Why the correlation, and not the cosine or the distance of a soft-arg-max peak: those two have
their smallest value at maps that are flat, of which any two are alike and peak in the middle, and a
training would find that. A flat map has no correlation with any other, itself included as soon as
there is noise, so that flatness is no way out. Nothing keeps maps from being alike on all images,
which `jprotop map-quality` looks for.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jprotop.attacks import pgd
from jprotop.attacks.budget import Numbers
from jprotop.prototypes.see import Network
from jprotop.training.robust import register_method

# Under the root of a map's variance over its cells, in squared units of similarity: a map that
# varies by much less counts as flat.
_FLAT = 1e-4


def own_prototypes(prototype_class: tuple[int, ...], label: Int[Array, " N"]) -> Bool[Array, "N P"]:
  """Which prototypes are of each image's class."""
  return jnp.asarray(prototype_class)[None, :] == label[:, None]


def map_change(
  before: Float[Array, "N h w P"], after: Float[Array, "N h w P"], own: Bool[Array, "N P"]
) -> Float[Array, " N"]:
  """Mean of 1 - correlation of two maps over their cells, over each image's own prototypes."""
  both = (_standardised(maps.reshape(len(maps), -1, maps.shape[-1])) for maps in (before, after))
  correlation = jnp.mean(jnp.prod(jnp.stack(list(both)), axis=0), axis=1)
  return jnp.sum(jnp.where(own, 1 - correlation, 0.0), axis=1) / jnp.sum(own, axis=1)


def _standardised(maps: Float[Array, "N cells P"]) -> Float[Array, "N cells P"]:
  centred = maps - jnp.mean(maps, axis=1, keepdims=True)
  return centred / jnp.sqrt(jnp.mean(centred**2, axis=1, keepdims=True) + _FLAT)


def changed_most(
  network: Network,
  images: Float[Array, "N S S 3"],
  label: Int[Array, " N"],
  keys: Key[Array, " N"],
  numbers: Numbers,
) -> Float[Array, "N S S 3"]:
  """Images within eps whose maps of their class's prototypes are changed most, by PGD."""
  own, before = own_prototypes(network.model.prototype_class, label), network(images).similarity_map
  room = pgd.everywhere(images)

  def change(x):
    return map_change(before, network(x).similarity_map, own)

  return pgd.run(pgd.init(room, numbers, keys), change, room, numbers).found


def penalty(
  network: Network,
  images: Float[Array, "N S S 3"],
  label: Int[Array, " N"],
  keys: Key[Array, " N"],
  numbers: Numbers,
) -> Float[Array, " N"]:
  """How much the maps of each image change at most; what finds the noise is not differentiated."""
  still = jax.lax.stop_gradient(network)
  noisy = jax.lax.stop_gradient(changed_most(still, images, label, keys, numbers))
  before, after = (network(x).similarity_map for x in (images, noisy))
  return map_change(before, after, own_prototypes(network.model.prototype_class, label))


register_method("maps", penalty=penalty)
