"""Adversarial accuracy (App. F.1, Table 3): what PGD leaves of the test accuracy."""

import jax
import numpy as np

from jprotop import parallel
from jprotop.attacks import adversarial
from jprotop.attacks.pgd import check_budget
from jprotop.data import batches
from jprotop.data.dataset import Split
from jprotop.models.protopnet import ProtoPNet


def _attack_batch(model: ProtoPNet, shared: tuple, batch: dict) -> jax.Array:
  variables, eps, step_size, num_steps = shared
  keys = jax.random.wrap_key_data(batch["key"])
  budget = {"eps": eps, "step_size": step_size, "num_steps": num_steps}
  images = adversarial.mislead(model, variables, batch["image"], batch["label"], keys, **budget)
  return model.apply(variables, images).logits


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
  check_budget(eps=eps, step_size=step_size, num_steps=num_steps)
  if not len(indices):
    return np.zeros((0, model.num_classes), np.float32)
  size = parallel.round_up(min(batch_size, len(indices)))

  def examples():
    for batch in batches.in_order(split, size, indices):
      yield {**batch, "key": parallel.key_array(seed, batch["index"])}

  shared = (variables, eps, step_size, num_steps)
  return parallel.gather_examples(
    _attack_batch,
    (model,),
    shared,
    examples(),
    size,
    total=len(indices),
    title="robust accuracy",
    iterates=True,
  )
