"""What the parts of FunnyBirds' classes say: which of them tell a class, and which two share."""

import itertools

import numpy as np
from jaxtyping import Bool, Int

from jprotop.metrics import checks

# A class and, bool [L], the parts that it shares with another.
Sharing = tuple[int, np.ndarray]


def minimal_sufficient_sets(
  variants: Int[np.ndarray, "C L"], *, definition: str = "paper"
) -> list[Bool[np.ndarray, "M L"]]:
  """For each class, the smallest sets of its parts that no other class has; none inside another.

  Args:
    definition: "released": the class of the highest index has none, by a slip.
  """
  checks.definition(definition)
  classes, parts = variants.shape
  sets = []
  for label, own in enumerate(variants):
    found: list[frozenset] = []
    if not (definition == "released" and label == classes - 1):
      same = np.delete(variants == own, label, axis=0)
      for size in range(1, parts + 1):
        for chosen in itertools.combinations(range(parts), size):
          smaller = any(kept <= set(chosen) for kept in found)
          if not smaller and not same[:, chosen].all(axis=1).any():
            found.append(frozenset(chosen))
    rows = [[part in kept for part in range(parts)] for kept in found]
    sets.append(np.array(rows, bool).reshape(-1, parts))
  return sets


def contrast_pair(
  variants: Int[np.ndarray, "C L"], label: int, *, definition: str = "paper"
) -> tuple[Sharing, Sharing] | None:
  """The first two classes that each share exactly two parts with a third, and not the same two.

  Args:
    label: the third class.
    definition: where no two classes are fit, "paper" gives None, and "released" the last two.
  """
  checks.definition(definition)
  shared = variants == variants[label]
  pair = None
  for a, b in itertools.combinations([c for c in range(len(variants)) if c != label], 2):
    pair = ((a, shared[a]), (b, shared[b]))
    if shared[a].sum() == 2 == shared[b].sum() and (shared[a] != shared[b]).any():
      return pair
  return pair if definition == "released" else None
