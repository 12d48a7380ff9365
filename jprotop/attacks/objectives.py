"""What an attack raises: Eq. (2), its margin, the authors' vanishing head, and one's own."""

from collections.abc import Callable

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jprotop.attacks.budget import Numbers
from jprotop.errors import InputError
from jprotop.prototypes.protopnet import ProtoPNet


@flax.struct.dataclass
class Cells:
  """The cells S and S_noisy of each image; None where an attack has none."""

  source: Bool[Array, "B h w"] | None = None
  target: Bool[Array, "B h w"] | None = None


# (maps, cells, numbers) to values; see `register_objective`.
Objective = Callable[[Float[Array, "B h w"], Cells, Numbers], Float[Array, " B"]]


def prototype_maps(
  model: ProtoPNet,
  variables: dict,
  images: Float[Array | np.ndarray, "B H W 3"],
  prototype: Int[Array | np.ndarray, " B"],
) -> Float[Array, "B h w"]:
  """Similarity map of each image to its own prototype."""
  latent = nn.apply(ProtoPNet.latent, model)(variables, images)
  return model.head.map_of(latent, variables["params"]["prototypes"][prototype])


def move_similarity(
  similarity_map: Float[Array, "B h w"],
  target: Bool[Array | np.ndarray, "B h w"],
  source: Bool[Array | np.ndarray, "B h w"],
  *,
  drop_shared_cells: bool | Bool[Array, ""] = False,
) -> Float[Array, " B"]:
  """Eq. (2): mean similarity over S_noisy minus mean similarity over S.

  Args:
    similarity_map: of the prototype that is to be moved.
    target: the cells S_noisy.
    source: the cells S.
    drop_shared_cells: a cell in both sets counts 0 in the second mean while still dividing it, as
      in the reference code (protocol `authors`).
  """
  target, source = target.astype(jnp.float32), source.astype(jnp.float32)
  counted = jnp.where(drop_shared_cells, source * (1 - target), source)
  cells = (-2, -1)
  # Padding rows of a batch have empty sets; they must not become NaN.
  raised = jnp.sum(similarity_map * target, cells) / jnp.maximum(jnp.sum(target, cells), 1)
  lowered = jnp.sum(similarity_map * counted, cells) / jnp.maximum(jnp.sum(source, cells), 1)
  return raised - lowered


def move(maps: Float[Array, "B h w"], cells: Cells, numbers: Numbers) -> Float[Array, " B"]:
  """`move_similarity` from the cells S to S_noisy."""
  if cells.source is None or cells.target is None:
    raise InputError("the objective move needs the cells S and S_noisy: source and target")
  drop = numbers.drop_shared_cells
  return move_similarity(maps, cells.target, cells.source, drop_shared_cells=drop)


def margin(maps: Float[Array, "B h w"], cells: Cells, numbers: Numbers) -> Float[Array, " B"]:
  """The maximum over S_noisy minus the maximum over all other cells.

  It is positive where, and only where, the prototype is found in S_noisy: the success test as an
  objective, as Carlini and Wagner (2017) have it for classes.
  """
  if cells.target is None:
    raise InputError("the objective margin needs the cells S_noisy: target")
  cells_of = (-2, -1)
  inside = jnp.max(jnp.where(cells.target, maps, -jnp.inf), cells_of)
  outside = jnp.max(jnp.where(cells.target, -jnp.inf, maps), cells_of)
  # Padding rows of a batch have no S_noisy; they must not become infinite.
  return jnp.where(jnp.isfinite(inside) & jnp.isfinite(outside), inside - outside, 0.0)


def vanish(
  maps: Float[Array, "B h w"], cells: Cells | None = None, numbers: Numbers | None = None
) -> Float[Array, " B"]:
  """The reference code's third attack: minus the prototype's activation on the image."""
  flat = maps.reshape(maps.shape[0], -1)
  highest = jnp.argmax(flat, axis=1, keepdims=True)
  return -jnp.take_along_axis(flat, highest, axis=1)[:, 0]


OBJECTIVES: dict[str, Objective] = {"move": move, "margin": margin, "vanish": vanish}


def register_objective(name: str, function: Objective) -> None:
  """Makes an objective known by a name: `perturb(..., objective=name)`.

  Args:
    function: (maps of each image's prototype, cells, numbers) to values, to be raised. It must be a
      module's own function: of one that is made anew each time, the program is compiled anew each
      time.

  Raises:
    InputError: there is one of that name.
  """
  if name in OBJECTIVES:
    raise InputError(f"objective {name!r} is there already; choose another name")
  OBJECTIVES[name] = function


def objective_of(given: str | Objective) -> Objective:
  """An objective by its name, or the function itself.

  Raises:
    InputError: there is none of that name.
  """
  if callable(given):
    return given
  if given not in OBJECTIVES:
    raise InputError(
      f"objective {given!r} is not known; it must be one of {', '.join(sorted(OBJECTIVES))}, or a "
      "function (see objectives.register_objective)"
    )
  return OBJECTIVES[given]
