"""How far a prototype went in images whose attack succeeded, and whether it left its part and the
bird."""

import msgspec
import numpy as np
from jaxtyping import Bool, Float, Real

from jprotop import regions, statistics
from jprotop.attacks import cases as attack_cases
from jprotop.data.parts import BACKGROUND
from jprotop.runs.records import Mean, Share


class Displacement(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
  """From the strongest cell of the clean map to that of the attacked one, over successes.

  distance_cells is between their centres; distance_share the same with the image's height and width
  as units; margin how much higher the map is outside S than inside, in its own units. off_part is
  of those that sat on an annotated part: another group of parts, or none, is found then. off_bird
  is of those with at least three visible parts: the strongest cell lies wholly outside of the
  convex hull of these. The data hold no outline of the bird, which reaches a little further.
  """

  distance_cells: Mean
  distance_share: Mean
  margin: Mean
  off_part: Share
  off_bird: Share


def distances(
  before: Float[np.ndarray, "N h w"], after: Float[np.ndarray, "N h w"]
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
  """How far the strongest cell went: in cells, and as a share of the image's height and width."""
  grid = np.array(before.shape[1:])
  peaks = (np.array([regions.peak_cell(m) for m in maps]) for maps in (before, after))
  first, last = (cells.reshape(-1, 2).astype(float) for cells in peaks)
  return np.linalg.norm(last - first, axis=1), np.linalg.norm((last - first) / grid, axis=1)


def part_names(
  maps: Float[np.ndarray, "N h w"], points: Real[np.ndarray, "N 15 3"], size: int
) -> list[str]:
  """The group of the part that each map sits on, BACKGROUND where it sits on none."""
  return [
    attack_cases.group_of_map(similarity_map, of_image, size) or BACKGROUND
    for similarity_map, of_image in zip(maps, points)
  ]


def off_bird(
  maps: Float[np.ndarray, "N h w"], points: Real[np.ndarray, "N 15 3"], size: int
) -> Bool[np.ndarray, " N"]:
  """Whether each strongest cell lies wholly outside of the hull of the image's visible parts."""
  found = [
    regions.is_off_hull(regions.peak_box(m, size, size), seen[seen[:, 2] > 0, :2])
    for m, seen in zip(maps, points)
  ]
  return np.array(found, bool)


def displacement(
  before: Float[np.ndarray, "N h w"],
  after: Float[np.ndarray, "N h w"],
  margin: Float[np.ndarray, " N"],
  points: Real[np.ndarray, "N 15 3"],
  size: int,
) -> dict[str, dict]:
  """A `Displacement`, from the maps of the prototypes that succeeded.

  Args:
    points: part locations (x, y, visible) in pixels of the size x size images.
  """
  cells, share = distances(before, after)
  sat_on, found_on = (np.array(part_names(maps, points, size), str) for maps in (before, after))
  visible = (points[..., 2] > 0).sum(axis=1)
  return {
    "distance_cells": statistics.mean(cells),
    "distance_share": statistics.mean(share),
    "margin": statistics.mean(margin),
    "off_part": statistics.share((sat_on != found_on)[sat_on != BACKGROUND]),
    "off_bird": statistics.share(off_bird(after, points, size)[visible >= 3]),
  }
