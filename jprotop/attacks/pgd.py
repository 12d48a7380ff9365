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
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jprotop.attacks.budget import Numbers

Objective = Callable[[Float[Array, "B H W 3"]], Float[Array, " B"]]


@flax.struct.dataclass
class Room:
  """Where attacked pictures may lie: within eps of the image on the mask, equal to it off it.

  Attributes:
    image: in [0, 1].
    mask: the pixels that may change.
  """

  image: Float[Array, "B H W 3"]
  mask: Bool[Array, "B H W"]

  @property
  def pixels(self) -> Float[Array, "B H W 1"]:
    """The mask as 0 and 1."""
    return self.mask[..., None].astype(self.image.dtype)


def everywhere(image: Float[Array, "B H W 3"]) -> Room:
  """Where all pixels of images may change."""
  return Room(image, jnp.ones(image.shape[:3], bool))


@flax.struct.dataclass
class State:
  """Where an attack stands.

  A method that keeps more makes a subclass of it, with arrays [B, ...] alone: images are spread
  over devices.

  Attributes:
    x: where the next gradient is taken; outside of the programs that step, [devices, share, ...].
  """

  x: Float[Array, "*B H W 3"]

  @property
  def found(self) -> Float[Array, "*B H W 3"]:
    """The attacked images: of PGD the last iterate."""
    return self.x


@dataclasses.dataclass(frozen=True)
class Method:
  """How noise is found. Of functions of a module, a second attack compiles nothing.

  Attributes:
    init: (room, numbers, random keys) to a State; a method may have Numbers of its own.
    run: (state, objective, room, numbers) to the State `numbers.num_steps` steps on; None: what
      `init` makes is all.
  """

  init: Callable[[Room, Any, Key[Array, " B"]], State]
  run: Callable[[Any, Callable, Room, Any], Any] | None


def project(
  x: Float[Array, "B H W 3"],
  image: Float[Array, "B H W 3"],
  mask: Float[Array, "B H W 1"],
  eps: float | Float[Array, ""],
) -> Float[Array, "B H W 3"]:
  """The picture nearest to `x` within eps of `image` on the mask, equal to it off it, in [0, 1].

  Args:
    mask: 0 or 1.
    eps: in units of [0, 1].
  """
  delta = jnp.clip(x - image, -eps, eps) * mask
  return jnp.clip(image + delta, 0.0, 1.0)


def uniform_noise(
  keys: Key[Array, " B"], shape: tuple[int, ...], eps: float | Float[Array, ""]
) -> Float[Array, "B ..."]:
  """Noise U(-eps, eps) of a shape, one key an image: no image depends on its batch."""

  def draw(key):
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)

  return eps * jax.vmap(draw)(keys)


def random_start(
  room: Room,
  keys: Key[Array, " B"],
  *,
  eps: float | Float[Array, ""],
  start_off_mask: bool | Bool[Array, ""] = False,
) -> Float[Array, "B H W 3"]:
  """Images with noise U(-eps, eps) on the mask, in [0, 1].

  Args:
    start_off_mask: draw it over the whole image, as the reference does; what lies off the mask is
      gone after the first projection (protocol `authors`).
  """
  noise = uniform_noise(keys, room.image.shape[1:], eps)
  where = start_off_mask | room.mask[..., None]
  return jnp.clip(room.image + jnp.where(where, noise, 0.0), 0.0, 1.0)


def init(room: Room, numbers: Numbers, keys: Key[Array, " B"] | None = None) -> State:
  """Where an attack begins: at a random start, or without keys, or `random_start`, at the image."""
  if keys is None:
    return State(room.image)
  noisy = random_start(room, keys, eps=numbers.eps, start_off_mask=numbers.start_off_mask)
  return State(jnp.where(numbers.random_start, noisy, room.image))


def climb(
  x: Float[Array, "B H W 3"], gradient: Float[Array, "B H W 3"], room: Room, numbers: Numbers
) -> Float[Array, "B H W 3"]:
  """One signed step up a gradient from x, back into the room."""
  moved = x + numbers.step_size * jnp.sign(gradient) * room.pixels
  return project(moved, room.image, room.pixels, numbers.eps)


def step(state: State, objective: Objective, room: Room, numbers: Numbers) -> State:
  """One step: `objective` is to be raised."""
  gradient = jax.grad(lambda x: jnp.sum(objective(x)))(state.x)
  return dataclasses.replace(state, x=climb(state.x, gradient, room, numbers))


def run(state: State, objective: Objective, room: Room, numbers: Numbers) -> State:
  """The state `numbers.num_steps` steps on, in one `lax.fori_loop`."""
  return jax.lax.fori_loop(
    0, numbers.num_steps, lambda _, state: step(state, objective, room, numbers), state
  )


PGD = Method(init, run)


def masked_pgd(
  objective: Objective,
  images: Float[Array | np.ndarray, "B H W 3"],
  mask: Bool[Array | np.ndarray, "B H W"],
  *,
  eps: float | Float[Array, ""],
  step_size: float | Float[Array, ""],
  num_steps: int | Int[Array, ""],
  keys: Key[Array, " B"] | None = None,
  start_off_mask: bool | Bool[Array, ""] = False,
) -> Float[Array, "B H W 3"]:
  """Attacked images: the last iterate of masked PGD.

  Args:
    objective: from images to values, to be raised; each image's own.
    images: in [0, 1].
    mask: the pixels that may change.
    eps, step_size, num_steps: as in `budget.Numbers`.
    keys, start_off_mask: for a `random_start`; without keys it starts at the image.
  """
  room = Room(jnp.asarray(images), jnp.asarray(mask))
  numbers = Numbers(
    eps=eps, step_size=step_size, num_steps=num_steps, start_off_mask=start_off_mask
  )
  return run(init(room, numbers, keys), objective, room, numbers).found
