"""What a backbone expects of images, and the plain classifier over it."""

from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jprotop.networks.families import family_of, make_backbone
from jprotop.networks.layers import LayerOptions


def normalise(images: Float[Array | np.ndarray, "*n 3"], backbone: str) -> Float[Array, "*n 3"]:
  """Images in [0, 1] to what the backbone of that name expects."""
  normalisation = family_of(backbone).normalisation
  mean, std = (jnp.broadcast_to(jnp.array(x), images.shape) for x in normalisation)
  return (jnp.asarray(images) - mean) / std


class BackboneClassifier(nn.Module):
  """The backbone under a plain linear classifier: a start where no pretrained weights are had."""

  backbone: str
  num_classes: int
  options: LayerOptions = LayerOptions()

  if TYPE_CHECKING:  # Flax makes it, of the fields.

    def __hash__(self) -> int: ...

  @nn.compact
  def __call__(
    self,
    images: Float[Array | np.ndarray, "N H W 3"],
    train: bool = False,
    mask: Float[Array, " N"] | None = None,
  ) -> Float[Array, "N C"]:
    """Logits from the mean over all cells of the backbone's output."""
    x = normalise(images, self.backbone).astype(self.options.dtype)
    x = make_backbone(self.backbone, options=self.options, name="features")(x, train, mask)
    return nn.Dense(self.num_classes, name="classifier")(x.mean(axis=(1, 2)).astype(jnp.float32))
