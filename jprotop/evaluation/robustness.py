"""Adversarial accuracy (App. F.1, Table 3): what PGD leaves of the test accuracy."""

import jax
import jax.numpy as jnp
import numpy as np

from jprotop import parallel
from jprotop.attacks import adversarial, pgd
from jprotop.data import batches
from jprotop.data.dataset import Split
from jprotop.evaluation import accuracy
from jprotop.models.protopnet import ProtoPNet


def _begin_batch(eps: jax.Array, batch: dict) -> jax.Array:
  everywhere = jnp.ones(batch["image"].shape[:3], bool)
  return pgd.random_start(
    batch["image"], everywhere, jax.random.wrap_key_data(batch["key"]), eps=eps
  )


def _climb_batch(model: ProtoPNet, shared: tuple, batch: dict) -> jax.Array:
  """Images [N, S, S, 3] some steps further."""
  variables, eps, step_size, num_steps = shared
  return adversarial.mislead(
    model,
    variables,
    batch["image"],
    batch["label"],
    None,
    eps=eps,
    step_size=step_size,
    num_steps=num_steps,
    start=batch["attacked"],
  )


def attacked_logits(
  model: ProtoPNet,
  variables: dict,
  split: Split,
  indices: np.ndarray,
  *,
  eps: float,
  step_size: float,
  num_steps: int,
  seed: int,
  batch_size: int,
) -> np.ndarray:
  """Logits [N, C] of images of a split after PGD on the whole image against their class.

  Args:
    indices: int [N], which images: those classified correctly; the others need no attack.
    eps, step_size: in units of [0, 1].
    seed: of the random start, one draw an image.
  """
  pgd.check_budget(eps=eps, step_size=step_size, num_steps=num_steps)
  if not len(indices):
    return np.zeros((0, model.num_classes), np.float32)
  size = parallel.round_up(min(batch_size, len(indices)))

  def examples():
    for batch in batches.in_order(split, size, indices):
      yield {**batch, "key": parallel.key_array(seed, batch["index"])}

  begin, climb = parallel.per_example(_begin_batch), parallel.per_example(_climb_batch, model)
  look = parallel.per_example(accuracy.logits, model)

  def attack(variables: dict, batch: dict) -> jax.Array:
    x = begin(eps, batch)
    for slice_steps in parallel.loop_slices(num_steps):
      x = climb((variables, eps, step_size, slice_steps), {**batch, "attacked": x})
    return look(variables, {"image": x})

  return parallel.gather_examples(
    attack, variables, examples(), size, total=len(indices), title="robust accuracy"
  )
