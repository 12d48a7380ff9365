"""The made-up arrays that the released code was run on, and what it gave."""

import functools
import json
import pathlib
from typing import NamedTuple

import numpy as np

GOLDEN = pathlib.Path(__file__).parent / "golden/metrics"


class Inputs(NamedTuple):
  """24 images of four classes, 12 prototypes on a 7 x 7 grid, 15 parts in 224 pixels."""

  maps: np.ndarray
  noisy: np.ndarray
  attacked: np.ndarray
  labels: np.ndarray
  prototype_class: np.ndarray
  parts: np.ndarray
  masks: np.ndarray
  arrays: dict


@functools.cache
def inputs():
  with np.load(GOLDEN / "inputs.npz") as file:
    arrays = dict(file)
  maps = [np.moveaxis(arrays[name], 1, -1) for name in ("maps", "maps_noise", "maps_attack")]
  parts = points(arrays["parts_xy"], arrays["parts_visible"])
  masks = np.unpackbits(arrays["masks_packed"], axis=1).reshape(24, 224, 224).astype(bool)
  return Inputs(*maps, arrays["labels"], arrays["proto_class"], parts, masks, arrays)


@functools.cache
def golden():
  """{name: the whole entry} of what the released code gives."""
  metrics = json.loads((GOLDEN / "golden.json").read_text())["metrics"]
  return {metric["name"]: metric for metric in metrics}


def points(places, visible):
  return np.concatenate([places, visible[..., None]], axis=2).astype(np.float64)


class World(NamedTuple):
  """A small random one, with all that real ones may lack.

  Class 1 has no image and class 3 no prototype; classes have 3, 1 and 2 prototypes. Some parts are
  not visible, which are then at NaN, and some are outside of the image.
  """

  maps: np.ndarray
  noisy: np.ndarray
  labels: np.ndarray
  prototype_class: np.ndarray
  parts: np.ndarray
  masks: np.ndarray


def world(seed, size, grid=(4, 5)):
  rng = np.random.default_rng(seed)
  maps = rng.random((11, *grid, 6)).astype(np.float32)
  noisy = maps + rng.normal(0, 0.15, maps.shape).astype(np.float32)
  labels = np.append(rng.choice([0, 2, 3], 9), [0, 2])
  places = rng.uniform(-0.1 * size, 1.1 * size, (11, 5, 2))
  # Whole numbers lie on the borders of boxes.
  places[:6] = np.round(places[:6])
  visible = rng.random((11, 5)) < 0.7
  visible[-1, -1] = True
  places[~visible] = np.nan
  masks = np.zeros((11, size, size), bool)
  for mask in masks:
    y, x = rng.integers(0, size // 2, 2)
    mask[y : y + size // 2, x : x + size // 3] = True
  classes = rng.permutation([0, 0, 0, 1, 2, 2])
  return World(maps, noisy, labels, classes, points(places, visible), masks)
