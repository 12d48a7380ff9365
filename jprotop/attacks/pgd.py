"""Masked projected gradient descent (Sections 2.2 and 3, Eq. 3).

    max over x of objective(x)   subject to   |x - image| <= eps on the mask,
                                              x = image off the mask,   0 <= x <= 1.

A method is `init`, `step` and `run` over a state. PGD's only alternates climbing and projecting;
others keep more in theirs.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jprotop.attacks.budget import Numbers

Objective = Callable[[jax.Array], jax.Array]


@flax.struct.dataclass
class Room:
  """Where attacked pictures may lie: within eps of the image on the mask, equal to it off it.

  Attributes:
    image: float32 [B, H, W, 3] in [0, 1].
    mask: boolean [B, H, W], the pixels that may change.
  """

  image: jax.Array
  mask: jax.Array

  @property
  def pixels(self) -> jax.Array:
    """The mask as 0 and 1, [B, H, W, 1]."""
    return self.mask[..., None].astype(self.image.dtype)


def everywhere(image: jax.Array) -> Room:
  """Where all pixels of images [B, H, W, 3] may change."""
  return Room(image, jnp.ones(image.shape[:3], bool))


@flax.struct.dataclass
class State:
  """Where an attack stands.

  A method that keeps more makes a subclass of it, with arrays [B, ...] alone: images are spread
  over devices.

  Attributes:
    x: [B, H, W, 3], where the next gradient is taken.
  """

  x: jax.Array

  @property
  def found(self) -> jax.Array:
    """The attacked images: of PGD the last iterate."""
    return self.x


@dataclasses.dataclass(frozen=True)
class Method:
  """How noise is found. Of functions of a module, a second attack compiles nothing.

  Attributes:
    init: (room, numbers, random keys [B] or None) to a State.
    run: (state, objective, room, numbers) to the State `numbers.num_steps` steps on; None: what
      `init` makes is all.
  """

  init: Callable[[Room, Numbers, jax.Array | None], State]
  run: Callable[[Any, Callable, Room, Numbers], Any] | None


def project(x: jax.Array, image: jax.Array, mask: jax.Array, eps: jax.Array) -> jax.Array:
  """The picture nearest to `x` within eps of `image` on the mask, equal to it off it, in [0, 1].

  Args:
    x, image: [B, H, W, 3].
    mask: [B, H, W, 1], 0 or 1.
    eps: scalar, in units of [0, 1].
  """
  delta = jnp.clip(x - image, -eps, eps) * mask
  return jnp.clip(image + delta, 0.0, 1.0)


def uniform_noise(keys: jax.Array, shape: tuple[int, ...], eps: float | jax.Array) -> jax.Array:
  """Noise U(-eps, eps), [B, *shape], one key [B] an image: no image depends on its batch."""

  def draw(key):
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)

  return eps * jax.vmap(draw)(keys)


def random_start(
  room: Room,
  keys: jax.Array,
  *,
  eps: float | jax.Array,
  start_off_mask: bool | jax.Array = False,
) -> jax.Array:
  """Images [B, H, W, 3] with noise U(-eps, eps) on the mask, in [0, 1].

  Args:
    keys: [B] random keys.
    start_off_mask: draw it over the whole image, as the reference does; what lies off the mask is
      gone after the first projection (protocol `authors`).
  """
  noise = uniform_noise(keys, room.image.shape[1:], eps)
  where = start_off_mask | room.mask[..., None]
  return jnp.clip(room.image + jnp.where(where, noise, 0.0), 0.0, 1.0)


def init(room: Room, numbers: Numbers, keys: jax.Array | None = None) -> State:
  """Where an attack begins: at a random start, or without keys, or `random_start`, at the image."""
  if keys is None:
    return State(room.image)
  noisy = random_start(room, keys, eps=numbers.eps, start_off_mask=numbers.start_off_mask)
  return State(jnp.where(numbers.random_start, noisy, room.image))


def climb(x: jax.Array, gradient: jax.Array, room: Room, numbers: Numbers) -> jax.Array:
  """One signed step up a gradient [B, H, W, 3] from x, back into the room."""
  moved = x + numbers.step_size * jnp.sign(gradient) * room.pixels
  return project(moved, room.image, room.pixels, numbers.eps)


def step(state: State, objective: Objective, room: Room, numbers: Numbers) -> State:
  """One step: `objective`, from images [B, H, W, 3] to values [B], is to be raised."""
  gradient = jax.grad(lambda x: jnp.sum(objective(x)))(state.x)
  return state.replace(x=climb(state.x, gradient, room, numbers))


def run(state: State, objective: Objective, room: Room, numbers: Numbers) -> State:
  """The state `numbers.num_steps` steps on, in one `lax.fori_loop`."""
  return jax.lax.fori_loop(
    0, numbers.num_steps, lambda _, state: step(state, objective, room, numbers), state
  )


PGD = Method(init, run)


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
) -> jax.Array:
  """Attacked images, [B, H, W, 3]: the last iterate of masked PGD.

  Args:
    objective: images [B, H, W, 3] to values [B], to be raised; each image's own.
    images: float32 [B, H, W, 3] in [0, 1].
    mask: boolean [B, H, W], the pixels that may change.
    eps, step_size, num_steps: as in `budget.Numbers`.
    keys, start_off_mask: for a `random_start`; without keys it starts at the image.
  """
  room = Room(images, mask)
  numbers = Numbers(
    eps=eps, step_size=step_size, num_steps=num_steps, start_off_mask=start_off_mask
  )
  return run(init(room, numbers, keys), objective, room, numbers).found
