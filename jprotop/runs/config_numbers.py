"""Numbers of a config, and within which bounds they may change."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Number:
  """A default, and from what to what it may be changed: to numbers of its type.

  A bound is where a number makes no sense, or where a slip of the finger would fill the memory or
  go on for ever; it is far from what anyone needs.
  """

  default: int | float
  least: int | float
  most: int | float


# JAX makes its keys of 32 bits: with more of them two seeds would be the same one.
SEED = Number(0, 0, 2**32 - 1)
BATCH = 10_000
IMAGES = 1_000_000
EPOCHS = 100_000
