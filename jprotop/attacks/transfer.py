"""Noise that was made on one network, looked at by another (Papernot et al. 2016).

Of an image every network has its own most activated prototype, and its own place S where it finds
it. The noise moves the source's prototype away from the source's S. It transfers where the victim
finds its own prototype outside of its own S then. Noise may be anywhere in the image, the same for
all, so that one network's success can be compared with another's.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from jprotop import parallel, regions
from jprotop.attacks import cases
from jprotop.attacks.budget import Budget
from jprotop.attacks.objectives import Objective
from jprotop.attacks.perturb import AttackBatch, Views, perturb, random_signs, see_own
from jprotop.prototypes import selectors
from jprotop.prototypes.see import Network, see


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sight:
  """What a network sees in N images, and where.

  Attributes:
    prototype: the most activated one of each.
    source: the cells S where it is found.
    prediction: the class.
  """

  network: Network
  prototype: Int[np.ndarray, " N"]
  source: Bool[np.ndarray, "N h w"]
  prediction: Int[np.ndarray, " N"]

  def of(self, rows: Int[np.ndarray, " n"]) -> "Sight":
    """The same of some of the images."""
    return dataclasses.replace(
      self,
      prototype=self.prototype[rows],
      source=self.source[rows],
      prediction=self.prediction[rows],
    )


def sight(network: Network, images: Float32[np.ndarray, "N S S 3"], *, batch_size: int) -> Sight:
  """What a network sees in clean images; S is that of the method as the paper states it."""
  activations = see(network, images, selectors.scores, batch_size=batch_size)["activations"]
  prototype = activations.argmax(axis=1)
  views = see_own(network, images, prototype, batch_size=batch_size)
  rules, size = cases.RULES["paper"], images.shape[1]
  return Sight(
    network=network,
    prototype=prototype,
    source=np.stack([cases.source_cells(each, size, rules) for each in views.similarity_map]),
    prediction=views.logits.argmax(axis=1),
  )


def left(
  maps: Float[np.ndarray, "N h w"], source: Bool[np.ndarray, "N h w"]
) -> Bool[np.ndarray, " N"]:
  """Whether each map is higher somewhere outside its cells S than anywhere inside."""
  return regions.max_over_cells(maps, ~source) > regions.max_over_cells(maps, source)


def noisy(
  of: Sight,
  images: Float32[np.ndarray, "N S S 3"],
  index: Int[np.ndarray, " N"],
  budget: Budget,
  *,
  objective: str | Objective | None,
  seed: int,
  batch_size: int,
  title: str,
) -> Views:
  """Images with noise that moves what a network sees in them, and what it sees then.

  Args:
    index: what names each image's random start.
    objective: as in `perturb.perturb`; None: the control, random signs.
    seed: of the random start, or of the signs, which are the same for every network.
    title: of the progress bar.
  """
  batch = AttackBatch(
    image=images,
    pixels=np.ones(images.shape[:3], bool),
    prototype=of.prototype,
    key=parallel.key_array(seed, index),
    source=of.source,
    target=~of.source,
  )
  if objective is None:
    return random_signs(of.network, batch, budget, batch_size=batch_size, title=title)
  return perturb(of.network, batch, budget, objective=objective, batch_size=batch_size, title=title)


def looked_at(
  victim: Sight, images: Float32[np.ndarray, "N S S 3"], budget: Budget, *, batch_size: int
) -> Views:
  """What a victim sees in noisy images of its own prototypes."""
  files = victim.network.in_files(budget.survive_jpeg)
  return see_own(files, images, victim.prototype, batch_size=batch_size)
