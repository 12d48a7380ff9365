"""An attack objective: lower the mean similarity over S, wherever it then goes.

jprotop head-on-stomach --workdir=RUN --config.extensions=squeeze.py \
  --config.measure.attack.objective=squeeze
"""

import jax.numpy as jnp

from jprotop.attacks.objectives import register_objective


def squeeze(maps, cells, numbers):
  """Minus the mean of maps [B, h, w] over the cells S, [B]; padding rows have no cells."""
  count = jnp.maximum(cells.source.sum((1, 2)), 1)
  return -(maps * cells.source).sum((1, 2)) / count


register_objective("squeeze", squeeze)
