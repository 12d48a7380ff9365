"""Training behind frozen layers: what they make of every copy is computed once, and stored.

Where the first parts of a backbone stay as they start (train.frozen.parts), every copy goes through
them once, and each pass of the paper's phases begins with what came out. The remedy of
App. F.2 tosses its coin anew in each pass, so both versions of each copy are stored. Adversarial
images change from step to step: those go through the whole network.
"""

import functools
import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from tqdm import tqdm

from jprotop import parallel
from jprotop.data.batches import EpochPlan, Epochs, Examples, Renderer, images_that_came
from jprotop.prototypes.protopnet import Output, ProtoPNet, make_model
from jprotop.prototypes.see import Network, Scene
from jprotop.training import copies
from jprotop.training.phases import Phase

# Of what is stored; where it would be more, every pass goes through the whole network.
MAX_BYTES = 1.6e10
_PHASES = ("warm", "joint", "last_layer")


class StoredRenderer(Renderer):
  """A `Renderer` of what the frozen layers make of images, in place of them.

  Attributes:
    frozen: how many parts of the backbone those layers are.
  """

  def __init__(self, fronts: np.ndarray, frozen: int):
    """`fronts`: [V, M, g1, g2, F], of M copies in V versions."""
    self.shared, self.on_device, self.frozen = {}, images_that_came, frozen
    self._fronts = fronts

  def batch(self, examples: Examples, pool: ThreadPoolExecutor) -> dict:
    return {"image": self._fronts[examples.version, examples.number]}


@flax.struct.dataclass
class Rest(Network):
  """A network behind its frozen layers, as `StoredRenderer` needs it."""

  frozen: int = flax.struct.field(pytree_node=False, default=0)

  def __call__(self, fronts: Float[Array, "N g1 g2 F"]) -> Output:
    return self.model.apply(self.variables, fronts, frozen=self.frozen, method=ProtoPNet.from_front)


def network_of(model: ProtoPNet, variables: dict, epochs: Epochs) -> Network:
  """The network, or what of it the batches of these epochs have not been through."""
  if isinstance(epochs.renderer, StoredRenderer):
    return Rest(model, variables, frozen=epochs.renderer.frozen)
  return Network(model, variables)


def is_stored(config: dict, phase: Phase, plan: EpochPlan) -> bool:
  """Whether a config's phase begins behind its frozen layers."""
  return phase.name in _PHASES and _may_be(config) and _bytes(config, plan) <= MAX_BYTES


def what_is_too_much(config: dict, plan: EpochPlan) -> str:
  """Why a config's copies are not stored, where it is that they are too many; else nothing."""
  if not _may_be(config) or (size := _bytes(config, plan)) <= MAX_BYTES:
    return ""
  return (
    f"outputs of the frozen layers would take {size / 1e9:.1f} GB, of which {MAX_BYTES / 1e9:.0f} "
    "are stored: every pass goes through the whole network; fewer --config.train.data.copies or "
    "more --config.train.frozen.parts take less"
  )


def _may_be(config: dict) -> bool:
  train = config["train"]
  return train["frozen"]["parts"] > 0 and train["network"] != "adversarial"


def _bytes(config: dict, plan: EpochPlan) -> int:
  """Of all versions of all copies."""
  train = config["train"]
  # Classes and prototypes have no say in it.
  model = make_model(train["model"], num_classes=2)
  one = _front_of(model, train["data"]["image_size"], train["frozen"]["parts"])
  return plan.num_versions * plan.num_examples * math.prod(one.shape) * one.dtype.itemsize


@functools.lru_cache
def _front_of(model: ProtoPNet, image_size: int, frozen: int) -> jax.ShapeDtypeStruct:
  """Shape [1, g1, g2, F] and type of an image's; nothing is computed."""
  images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
  return jax.eval_shape(
    lambda images: model.init_with_output(
      jax.random.key(0), images, frozen, method=ProtoPNet.front
    )[0],
    images,
  )


def store(
  model: ProtoPNet, variables: dict, phase: Phase, epochs: Epochs, bar: tqdm, cost: float
) -> Epochs:
  """The same epochs, of what the phase's frozen layers make of every copy; the bar moves on by the
  cost of each."""
  plan, renderer, frozen = epochs.plan, epochs.renderer, len(phase.frozen)
  scene = Scene(Network(model, variables), renderer.shared)
  function = parallel.per_example(_front, renderer.on_device, frozen)
  seen = copies.every(function, scene, epochs, bar, cost)
  place, first = next(seen)  # Which also says how large it is.
  fronts = copies.array((plan.num_versions, plan.num_examples, *first.shape[1:]), first.dtype)
  for (version, rows), part in itertools.chain([(place, first)], seen):
    fronts[version, rows] = part
  return Epochs(plan, StoredRenderer(fronts, frozen))


def _front(on_device, frozen, scene, batch):
  network, images = scene.network, on_device(scene.shared, batch)
  return network.model.apply(network.variables, images, frozen, method=ProtoPNet.front)
