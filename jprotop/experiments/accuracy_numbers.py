"""What an `accuracy` record says of each image."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from jprotop.prototypes import accuracy

# A difference of accuracies that is too small to matter.
SMALL = 0.02


def per_image(record: Mapping[str, Any]) -> dict[str, Shaped[np.ndarray, " N"]]:
  """Whether each test image is right, by the share's path in the record, and the difference."""
  if "test" not in record:
    return {}
  numbers = record["test"]
  right = {
    name: accuracy.unpacked(hits, numbers[name]["total"])
    for name, hits in numbers["hits"].items()
    if name in numbers
  }
  difference = right["altered"].astype(float) - right["clean"]
  values = {**right, "altered_minus_clean": difference}
  return {f"test.{name}": of_images for name, of_images in values.items()}
