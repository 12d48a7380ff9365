"""The method `masking`: the loss of Sacha et al. (AAAI 2024) against spatial misalignment.

A prototype's similarity should come from where its map is high. Of each image one prototype of its
class is drawn, and a quantile q ~ U(0.5, 0.98) of its map, upsampled to pixels. Pixels below the
quantile are painted over, and the change of the map on the pixels that stay, the mean of its
absolute value, is added to the loss of the clean images; the authors' weight is 10. What pixels are
painted with is our choice: the colour that the backbone's normalisation takes to 0.

It knows no noise: eps and steps have no say.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jprotop.attacks.budget import Numbers
from jprotop.networks.families import family_of
from jprotop.prototypes.see import Network
from jprotop.training.keep_maps import own_prototypes
from jprotop.training.robust import register_method

QUANTILES = (0.5, 0.98)


def drawn(
  own: Bool[Array, "N P"], keys: Key[Array, " N"]
) -> tuple[Int[Array, " N"], Float[Array, " N"]]:
  """One of each image's own prototypes, and a quantile."""

  def one(own, key):
    first, second = jax.random.split(key)
    prototype = jax.random.categorical(first, jnp.where(own, 0.0, -jnp.inf))
    low, high = QUANTILES
    return prototype, jax.random.uniform(second, minval=low, maxval=high)

  return jax.vmap(one)(own, keys)


def kept_pixels(
  upsampled: Float[Array, "N S S"], quantile: Float[Array, " N"]
) -> Bool[Array, "N S S"]:
  """Where each map is at or above its quantile."""
  threshold = jax.vmap(jnp.quantile)(upsampled, quantile)
  return upsampled >= threshold[:, None, None]


def penalty(
  network: Network,
  images: Float[Array, "N S S 3"],
  label: Int[Array, " N"],
  keys: Key[Array, " N"],
  numbers: Numbers,
) -> Float[Array, " N"]:
  """Mean absolute change of the drawn prototype's map on the pixels that stay, in similarity."""
  own = own_prototypes(network.model.prototype_class, label)
  prototype, quantile = drawn(own, keys)

  def upsampled(x):
    maps = network(x).similarity_map
    chosen = jnp.take_along_axis(maps, prototype[:, None, None, None], axis=-1)[..., 0]
    return jax.image.resize(chosen, images.shape[:3], "cubic")

  before = upsampled(images)
  kept = jax.lax.stop_gradient(kept_pixels(before, quantile))
  blank, _ = (jnp.asarray(x, images.dtype) for x in family_of(network.model.backbone).normalisation)
  painted = jnp.where(kept[..., None], images, jnp.broadcast_to(blank, images.shape))
  change = jnp.abs(upsampled(painted) - before)
  return jnp.sum(jnp.where(kept, change, 0.0), axis=(1, 2)) / jnp.sum(kept, axis=(1, 2))


register_method("masking", penalty=penalty)
