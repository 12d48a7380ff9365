"""What an attack may do: the Budget that a user gives, and the Numbers that its programs take.

flag or config  ->  Budget, checked  ->  Numbers, traced  ->  step
"""

import dataclasses

import flax.struct
from jaxtyping import Array, Bool, Float, Int

from jprotop.attacks.cases import RULES, Rules
from jprotop.data.alterations import jpeg
from jprotop.errors import InputError


@flax.struct.dataclass
class Numbers:
  """A budget and the rules that hold with it, as programs take them: all of it may be traced.

  Attributes:
    eps: radius of the l-infinity ball; step_size: of each signed step; both in units of [0, 1].
    num_steps: gradient steps.
    random_start: start from noise, where there are random keys.
    start_off_mask, drop_shared_cells: of `cases.Rules`.
  """

  eps: float | Float[Array, ""]
  step_size: float | Float[Array, ""]
  num_steps: int | Int[Array, ""]
  random_start: bool | Bool[Array, ""] = True
  start_off_mask: bool | Bool[Array, ""] = False
  drop_shared_cells: bool | Bool[Array, ""] = False


@dataclasses.dataclass(frozen=True)
class Budget:
  """An attack's numbers as they are given, in units of [0, 1] (Section 3: 8/255, 2/255, 40 steps).

  Attributes:
    eps, step_size, num_steps, random_start: as in Numbers.
    survive_jpeg: quality of a JPEG file that every picture is saved to before the network sees it:
      the noise is made for what is left of it there. None: there is no such file.

  Raises:
    InputError: a number that makes no sense.
  """

  eps: float = 8 / 255
  step_size: float = 2 / 255
  num_steps: int = 40
  random_start: bool = True
  survive_jpeg: int | None = None

  def __post_init__(self):
    if self.survive_jpeg is not None:
      jpeg.check_quality(self.survive_jpeg)
    if not 0 <= self.eps <= 1:
      raise InputError(
        f"eps={self.eps} is outside [0, 1]; pixels are in [0, 1], so write 8/255 as {8 / 255:.5f}"
      )
    if not 0 < self.step_size <= 1:
      raise InputError(
        f"step_size={self.step_size} is outside (0, 1]; the paper's is 2/255 = 0.00784"
      )
    if self.num_steps < 0:
      raise InputError(f"num_steps={self.num_steps} is negative; the paper takes 40")

  def numbers(self, rules: Rules = RULES["paper"]) -> Numbers:
    """What the programs take of the budget, and of the rules."""
    return Numbers(
      eps=self.eps,
      step_size=self.step_size,
      num_steps=self.num_steps,
      random_start=self.random_start,
      start_off_mask=rules.start_off_mask,
      drop_shared_cells=rules.drop_shared_cells,
    )
