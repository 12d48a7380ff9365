"""A remedy: train on uniform noise of the size that attacks may have.

jprotop train --config=tiny:adversarial --config.extensions=random_noise.py \
  --config.train.adversarial.method=random_noise --workdir=RUN
"""

import jax
import jax.numpy as jnp

from jprotop.training.robust import register_method


def random_noise(network, images, label, keys, numbers):
  """Images [N, S, S, 3] with noise U(-eps, eps), in [0, 1]."""

  def draw(key):
    return jax.random.uniform(key, images.shape[1:], minval=-numbers.eps, maxval=numbers.eps)

  return jnp.clip(images + jax.vmap(draw)(keys), 0.0, 1.0)


register_method("random_noise", random_noise)
