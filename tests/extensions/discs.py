"""A data set: discs of three colours on noise.

jprotop reproduce --config=tiny --config.extensions=discs.py --config.train.data.name=discs \
  --workdir=STUDY
"""

import io

import numpy as np
from PIL import Image

from jprotop.data.parts import PARTS
from jprotop.data.sources import Source, register_source

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 230)}
COUNT, SIZE, RADIUS = 6, 64, 12


def examples(split):
  """Each image has a generator of its own; its box is the disc's with a margin."""
  y, x = np.mgrid[:SIZE, :SIZE]
  for label, (name, colour) in enumerate(COLOURS.items()):
    for number in range(COUNT):
      rng = np.random.default_rng([label, number, split == "test"])
      pixels = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
      cy, cx = rng.integers(RADIUS + 4, SIZE - RADIUS - 4, 2)
      pixels[(y - cy) ** 2 + (x - cx) ** 2 < RADIUS**2] = colour
      file = io.BytesIO()
      Image.fromarray(pixels).save(file, "PNG")
      side = RADIUS + 4
      yield {
        "image": file.getvalue(),
        "image_id": f"{name}/{split}_{number}.png",
        "label": label,
        "box": (cx - side, cy - side, 2 * side, 2 * side),
        "parts": np.zeros((len(PARTS), 3), np.float32),
      }


def open_source(directory, settings, cache):
  return Source(
    class_names=list(COLOURS),
    counts=dict.fromkeys(("train", "test"), COUNT * len(COLOURS)),
    fingerprint=f"discs {COUNT} {SIZE} {RADIUS} {COLOURS}",
    examples=examples,
  )


register_source("discs", open_source)
