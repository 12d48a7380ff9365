"""Masked projected gradient descent (Sections 2.2 and 3, Eq. 3).

    max over x of objective(x)   subject to   |x - image| <= eps on the mask,
                                              x = image off the mask,   0 <= x <= 1.

One `lax.fori_loop` for every objective; the loop only alternates climbing and projecting.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jprotop.errors import InputError

Objective = Callable[[jax.Array], jax.Array]


def project(x: jax.Array, image: jax.Array, mask: jax.Array, eps: jax.Array) -> jax.Array:
  """The picture nearest to `x` within eps of `image` on the mask, equal to it off it, in [0, 1].

  Args:
    x, image: [B, H, W, 3].
    mask: [B, H, W, 1], 0 or 1.
    eps: scalar, in units of [0, 1].
  """
  delta = jnp.clip(x - image, -eps, eps) * mask
  return jnp.clip(image + delta, 0.0, 1.0)


def uniform_noise(keys: jax.Array, shape: tuple[int, ...], eps: jax.Array) -> jax.Array:
  """Noise U(-eps, eps), [B, *shape], one key [B] an image: no image depends on its batch."""
  draw = lambda key: jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)  # noqa: E731
  return eps * jax.vmap(draw)(keys)


def random_start(
  images: jax.Array,
  mask: jax.Array,
  keys: jax.Array,
  *,
  eps: float | jax.Array,
  start_off_mask: bool | jax.Array = False,
) -> jax.Array:
  """Images [B, H, W, 3] with noise U(-eps, eps) on the mask, boolean [B, H, W], in [0, 1].

  Args:
    keys: [B] random keys.
    start_off_mask: draw it over the whole image, as the reference does; what lies off the mask is
      gone after the first projection (protocol `authors`).
  """
  noise = uniform_noise(keys, images.shape[1:], eps)
  return jnp.clip(images + jnp.where(start_off_mask | mask[..., None], noise, 0.0), 0.0, 1.0)


def masked_pgd(
  objective: Objective,
  images: jax.Array,
  mask: jax.Array,
  *,
  eps: float | jax.Array,
  step_size: float | jax.Array,
  num_steps: int | jax.Array,
  keys: jax.Array | None = None,
  start_off_mask: bool | jax.Array = False,
  start: jax.Array | None = None,
) -> jax.Array:
  """Attacked images, [B, H, W, 3]: the last iterate of masked PGD.

  Args:
    objective: images [B, H, W, 3] to values [B], to be raised; each image's own.
    images: float32 [B, H, W, 3] in [0, 1].
    mask: boolean [B, H, W], the pixels that may change.
    eps: radius of the l-infinity ball; step_size: of each signed step; both in units of [0, 1].
    num_steps: gradient steps.
    keys, start_off_mask: for a `random_start`; without keys it starts at the image.
    start: [B, H, W, 3] in [0, 1], where to start instead, as where an earlier call has ended.
  """
  pixels = mask[..., None].astype(images.dtype)
  gradient = jax.grad(lambda x: jnp.sum(objective(x)))

  def climb_and_project(_, x):
    return project(x + step_size * jnp.sign(gradient(x)) * pixels, images, pixels, eps)

  if start is None and keys is not None:
    start = random_start(images, mask, keys, eps=eps, start_off_mask=start_off_mask)
  elif start is None:
    start = images
  return jax.lax.fori_loop(0, num_steps, climb_and_project, start)


def check_budget(*, eps: float, step_size: float, num_steps: int) -> None:
  """Raises InputError where an attack's numbers make no sense."""
  if not 0 <= eps <= 1:
    raise InputError(
      f"eps={eps} is outside [0, 1]; pixels are in [0, 1], so write 8/255 as {8 / 255:.5f}"
    )
  if not 0 < step_size <= 1:
    raise InputError(f"step_size={step_size} is outside (0, 1]; the paper's is 2/255 = 0.00784")
  if num_steps < 0:
    raise InputError(f"num_steps={num_steps} is negative; the paper takes 40")
