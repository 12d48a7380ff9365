"""How the add-on layers and the prototypes start, where that is not as in the paper.

The paper draws the add-on's kernels for the sizes of their outputs (He et al. 2015, "fan out"), and
prototypes uniformly. Over many channels, as the 1280 of an EfficientNet-Lite, that starts the
add-on's sigmoids saturated, and prototypes far from every patch.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from jprotop.data.dataset import Split
from jprotop.errors import InputError
from jprotop.prototypes.protopnet import Output
from jprotop.prototypes.see import Network, see

# What config.train.init may say of each; the first is the paper's.
ADD_ONS = ("fan_out", "fan_in")
PROTOTYPES = ("uniform", "patches")


def check_initial(add_on: str, prototypes: str) -> None:
  """InputError, which lists what is allowed, for another name."""
  allowed = {"add_on": (add_on, ADD_ONS), "prototypes": (prototypes, PROTOTYPES)}
  for key, (given, names) in allowed.items():
    if given not in names:
      raise InputError(f"train.init.{key}={given!r} is not known; it must be one of {names}")


def drawn_for_inputs(add_on: dict) -> dict:
  """An add-on's parameters, its 1x1 kernels of variance 2 / outputs as if drawn with 2 / inputs."""
  scaled = {}
  for name, layer in add_on.items():
    _, _, inputs, outputs = layer["kernel"].shape
    scaled[name] = {**layer, "kernel": layer["kernel"] * math.sqrt(outputs / inputs)}
  return scaled


def random_patches(
  network: Network, split: Split, *, seed: int, batch_size: int
) -> Float32[np.ndarray, "P D"]:
  """For each prototype of a ProtoPNet a random latent patch of a random image of its class.

  Images of a class are drawn again only when all of them were.
  """
  classes = np.array(network.model.prototype_class)
  rng = np.random.default_rng([seed, 7])
  image = np.empty(len(classes), int)
  for own in np.unique(classes):
    image[classes == own] = _drawn(
      rng, np.flatnonzero(split.label == own), int((classes == own).sum())
    )
  return see(
    network,
    split,
    _patch,
    batch_size=batch_size,
    indices=image,
    each={"place": rng.random((len(image), 2), np.float32)},
  )


def _drawn(rng: np.random.Generator, images: Int[np.ndarray, " n"], count: int):
  """So many of the images, each as often as the others or once more."""
  rounds = [rng.permutation(images) for _ in range(-(-count // len(images)))]
  return np.concatenate(rounds)[:count]


def _patch(out: Output, batch: dict) -> Float[Array, "N D"]:
  """The patch at each image's `place`, [N, 2], in shares of the grid's height and width."""
  count, *grid, _ = out.latent.shape
  row, column = (
    jnp.minimum((batch["place"][:, axis] * size).astype(int), size - 1)
    for axis, size in enumerate(grid)
  )
  return out.latent[jnp.arange(count), row, column]
