"""What is attacked: which images, which prototype of each, and the cells S and S_noisy.

The protocols differ here, in the objective and in the order of attacks; `Rules` says how.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from jprotop import regions
from jprotop.data import own_images
from jprotop.data.dataset import Split
from jprotop.data.own_images import Images
from jprotop.data.parts import GROUPS, PARTS
from jprotop.errors import InputError
from jprotop.prototypes.protopnet import ProtoPNet


@dataclasses.dataclass(frozen=True)
class Rules:
  """Where the reference code departs from the method as the paper states it.

  Attributes:
    inclusive_box: S includes the cell at the box's lower right border.
    rectangular_target: S_noisy becomes its bounding rectangle.
    drop_shared_cells: cells in both sets count 0 in the mean over S.
    start_off_mask: the random start covers the whole image.
    chained_source: from an image's second prototype on, the S of the success test, and with it
      S_noisy, comes from the image as it was attacked before; the objective's S never does.
    drop_covered: an image is left out as soon as an S covers its whole grid.

  The last two matter where several prototypes of an image are attacked in turn (success rate);
  Head on Stomach attacks one, so for it they change nothing.
  """

  inclusive_box: bool = False
  rectangular_target: bool = False
  drop_shared_cells: bool = False
  start_off_mask: bool = False
  chained_source: bool = False
  drop_covered: bool = False


RULES = {
  "paper": Rules(),
  "authors": Rules(**{field.name: True for field in dataclasses.fields(Rules)}),
}


@dataclasses.dataclass(frozen=True)
class Target:
  """Where the prototype is to be found: cells, a part or group of parts, or chosen by itself."""

  cells: tuple[tuple[int, int], tuple[int, int]] | None = None
  part: str | None = None


@dataclasses.dataclass(frozen=True)
class Cases:
  """Images, one prototype each, and the cells S and S_noisy.

  Attributes:
    images: what is attacked.
    prototype: of each image.
    source, target: S and S_noisy.
    rule: how each target was chosen: "cells", a part's or group's name, or "least active".
    source_group: the part group that each prototype sits on; "" if none.
    skipped: image id and reason of the images that cannot be attacked.
  """

  images: Images
  prototype: Int[np.ndarray, " N"]
  source: Bool[np.ndarray, "N h w"]
  target: Bool[np.ndarray, "N h w"]
  rule: list[str]
  source_group: list[str]
  skipped: list[dict]


def part_indices(name: str) -> list[int]:
  """Indices into PARTS of a part, or of a group of parts."""
  if name in GROUPS:
    return [PARTS.index(part) for part in GROUPS[name]]
  if name in PARTS:
    return [PARTS.index(name)]
  raise InputError(
    f"part {name!r} is not known; parts: {', '.join(PARTS)}; groups: {', '.join(GROUPS)}"
  )


def group_at(box: regions.Box, peak: tuple[float, float], points: Real[np.ndarray, "15 3"]) -> str:
  """The group of the visible part that a prototype sits on; "" if its box holds none.

  Args:
    box: the map's box of high activation, in pixels.
    peak: (y, x) of the map's maximum in pixels; of the parts in the box the nearest to it counts.
    points: part locations (x, y, visible).
  """
  x, y, visible = points.T
  inside = (visible > 0) & (x >= box.x0) & (x < box.x1) & (y >= box.y0) & (y < box.y1)
  if not inside.any():
    return ""
  nearest = int(np.where(inside, (y - peak[0]) ** 2 + (x - peak[1]) ** 2, np.inf).argmin())
  return next(group for group in GROUPS if nearest in part_indices(group))


def group_of_map(
  similarity_map: Float[np.ndarray, "h w"], points: Real[np.ndarray, "15 3"], size: int
) -> str:
  """The group of the part that a prototype's map sits on in a size x size image."""
  upsampled = regions.upsample(similarity_map, size, size)
  peak = divmod(int(upsampled.argmax()), size)
  return group_at(regions.high_activation_box(similarity_map, size, size), peak, points)


def source_cells(
  similarity_map: Float[np.ndarray, "h w"], size: int, rules: Rules
) -> Bool[np.ndarray, "h w"]:
  """S: the cells that the map's box of high activation overlaps."""
  box = regions.high_activation_box(similarity_map, size, size)
  h, w = similarity_map.shape
  return regions.box_cells(box, (h, w), (size, size), inclusive=rules.inclusive_box)


def draw_correct(
  logits: Float[np.ndarray, "N C"],
  label: Int[np.ndarray, " N"],
  count: int,
  *,
  seed: int,
  also_correct: Bool[np.ndarray, " n"] | None = None,
) -> tuple[Int[np.ndarray, " drawn"], int]:
  """Indices of `count` correctly classified images, drawn from a seed, in order; all of them where
  there are not so many. And how many there are.

  Args:
    logits: of the clean images.
    also_correct: whether another network is right too; only such images are drawn.

  Raises:
    InputError: count is not positive, or there is no correctly classified image.
  """
  if count < 1:
    raise InputError(f"num_images={count} must be at least 1")
  correct = logits.argmax(axis=1) == label
  if not correct.any():
    raise InputError("this network classifies no test image correctly; train it for longer")
  if also_correct is not None:
    if len(also_correct) != len(label):
      raise InputError(
        f"also_correct is about {len(also_correct)} images, but there are {len(label)}; give one "
        "value for each test image"
      )
    correct &= also_correct
  if not correct.any():
    raise InputError("no test image is classified correctly by both networks; train them longer")
  drawn = np.random.default_rng(seed).permutation(np.flatnonzero(correct))[:count]
  return np.sort(drawn), int(correct.sum())


@dataclasses.dataclass(frozen=True)
class Drawn:
  """N images of a split that were drawn, and what the network sees in them.

  Attributes:
    images: as they are.
    index: their places in the split.
    asked, available, correct: how many images were asked for, the split has, and are classified
      correctly there.
  """

  images: Images
  index: Int[np.ndarray, " N"]
  logits: Float[np.ndarray, "N C"]
  activations: Float[np.ndarray, "N P"]
  asked: int
  available: int
  correct: int


def draw(
  split: Split,
  scores: dict[str, np.ndarray],
  count: int,
  *,
  seed: int,
  also_correct: Bool[np.ndarray, " n"] | None = None,
) -> Drawn:
  """Images of a split by `draw_correct`.

  Args:
    scores: `selectors.scores` of the whole split.
  """
  index, correct = draw_correct(
    scores["logits"], split.label, count, seed=seed, also_correct=also_correct
  )
  return Drawn(
    images=own_images.from_split(split, index),
    index=index,
    logits=scores["logits"][index],
    activations=scores["activations"][index],
    asked=count,
    available=len(split),
    correct=correct,
  )


def choose_prototypes(
  model: ProtoPNet,
  logits: Float[np.ndarray, "N C"],
  activations: Float[np.ndarray, "N P"],
  prototype: int | None,
) -> Int[np.ndarray, " N"]:
  """The prototype to attack for each image: the given one, or the most activated of the
  predicted class."""
  if prototype is not None:
    count = len(model.prototype_class)
    if not 0 <= prototype < count:
      raise InputError(f"prototype {prototype} does not exist; this network has 0 to {count - 1}")
    return np.full(len(logits), prototype)
  own = np.array(model.prototype_class) == logits.argmax(axis=1)[:, None]
  own |= ~own.any(axis=1, keepdims=True)  # A pruned class may have none: then any will do.
  return np.where(own, activations, -np.inf).argmax(axis=1)


def find_target(
  similarity_map: Float[np.ndarray, "h w"],
  source: Bool[np.ndarray, "h w"],
  group: str,
  points: Real[np.ndarray, "15 3"],
  size: int,
  target: Target,
) -> tuple[Bool[np.ndarray, "h w"] | None, str]:
  """S_noisy for one image, and how it was chosen; None and why if there is none.

  By default, from the head to the stomach where parts are annotated, else to the least active
  rectangle of the shape of S.

  Args:
    similarity_map: of the prototype on the clean image.
    source: S.
    group: the part group that the prototype sits on.
    points: part locations (x, y, visible) in pixels of the size x size crop.
  """
  grid = source.shape
  if source.all():
    return None, "S covers the whole map"
  if target.cells is not None:
    return regions.cell_rectangle(*target.cells, grid), "cells"
  if target.part is not None:
    wanted = regions.points_to_cells(points[part_indices(target.part)], grid, (size, size))
    if wanted.any():
      return wanted, target.part
    if points[:, 2].any():
      return None, f"{target.part} is not visible"
    return None, "its parts are not annotated; choose the place with --target_cells"
  if group == "head":
    stomach = regions.points_to_cells(points[part_indices("stomach")], grid, (size, size)) & ~source
    if stomach.any():
      return stomach, "stomach"
  return regions.least_active_rectangle(similarity_map, source), "least active"


def build_cases(
  images: Images,
  prototype: Int[np.ndarray, " N"],
  maps: Float[np.ndarray, "N h w"],
  target: Target,
  rules: Rules,
) -> Cases:
  """S from each clean map's high-activation box, S_noisy by `find_target`.

  Args:
    maps: the clean similarity map of each image's prototype.
  """
  size = images.image.shape[1]
  kept, sources, targets, rule, groups, skipped = [], [], [], [], [], []
  for i, similarity_map in enumerate(maps):
    source = source_cells(similarity_map, size, rules)
    group = group_of_map(similarity_map, images.points[i], size)
    cells, how = find_target(similarity_map, source, group, images.points[i], size, target)
    if cells is None:
      skipped.append({"image_id": images.image_id[i], "reason": how})
      continue
    kept.append(i)
    sources.append(source)
    targets.append(regions.cells_bounding_box(cells) if rules.rectangular_target else cells)
    rule.append(how)
    groups.append(group)
  if not kept:
    reasons = "; ".join(sorted({f"{s['reason']}" for s in skipped}))
    raise InputError(f"none of the {len(images)} images can be attacked: {reasons}")
  chosen = Images(
    image=images.image[kept],
    image_id=[images.image_id[i] for i in kept],
    label=images.label[kept],
    points=images.points[kept],
  )
  return Cases(chosen, prototype[kept], np.stack(sources), np.stack(targets), rule, groups, skipped)
