"""Attacks on the classification: fast FGSM to train on, PGD to measure robustness (App. F.1)."""

import jax
import jax.numpy as jnp

from jprotop import losses
from jprotop.attacks import pgd
from jprotop.models.protopnet import ProtoPNet


def fast_fgsm(
  model: ProtoPNet,
  variables: dict,
  images: jax.Array,
  label: jax.Array,
  keys: jax.Array,
  *,
  eps: float,
  step_size: float,
) -> jax.Array:
  """Images of Wong et al. (2020): noise U(-eps, eps), then one signed step up the cross entropy.

  Batch norm is in eval mode; the other costs of the training loss play no part.

  Args:
    images: float32 [B, H, W, 3] in [0, 1].
    label: int [B]; keys: [B] random keys.
    eps, step_size: in units of [0, 1]; the paper takes 8/255 and 10/255.
  """
  return pgd.masked_pgd(
    lambda x: losses.cross_entropy(model.apply(variables, x).logits, label),
    images,
    jnp.ones(images.shape[:3], bool),
    eps=eps,
    step_size=step_size,
    num_steps=1,
    keys=keys,
  )


def mislead(
  model: ProtoPNet,
  variables: dict,
  images: jax.Array,
  label: jax.Array,
  keys: jax.Array | None,
  *,
  eps: float | jax.Array,
  step_size: float | jax.Array,
  num_steps: int | jax.Array,
  start: jax.Array | None = None,
) -> jax.Array:
  """Images of PGD against the class (Madry et al. 2018), [B, H, W, 3]; App. F.1 takes 10 steps.

  One random start. As in the reference only images that are still classified correctly are moved
  on, and the loop ends when there is none: an image once misled stays as it is.

  Args:
    start: [B, H, W, 3], where an earlier call has ended, to go on from; it needs no keys.
  """
  everywhere = jnp.ones(images.shape[:3], bool)

  def objective(x):
    logits = model.apply(variables, x).logits
    return jnp.sum(losses.cross_entropy(logits, label)), logits.argmax(-1) == label

  def keep_on(state):
    _, correct, step = state
    return (step < num_steps) & correct.any()

  def climb_and_project(state):
    x, correct, step = state
    gradient, right = jax.grad(objective, has_aux=True)(x)
    moved = pgd.project(x + step_size * jnp.sign(gradient), images, everywhere[..., None], eps)
    correct &= right
    return jnp.where(correct[:, None, None, None], moved, x), correct, step + 1

  if start is None:
    start = pgd.random_start(images, everywhere, keys, eps=eps)
  return jax.lax.while_loop(keep_on, climb_and_project, (start, jnp.ones(len(label), bool), 0))[0]
