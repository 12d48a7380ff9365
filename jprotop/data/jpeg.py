"""JPEG compression as an alteration of the data (Section 4; Appendix D)."""

import dataclasses
import io

import numpy as np
from PIL import Image

from jprotop.errors import InputError

QUALITIES = range(1, 96)  # Above 95 Pillow's encoder advises against itself.
SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")


@dataclasses.dataclass(frozen=True)
class Scheme:
  """Which images are compressed, and how strongly.

  Attributes:
    quality: Pillow's, 1 to 95.
    classes: labels of the classes whose images are compressed; None: every image.
  """

  quality: int
  classes: tuple[int, ...] | None = None

  def __post_init__(self):
    check_quality(self.quality)

  def covers(self, label: np.ndarray) -> np.ndarray:
    """Whether images of these labels [N] are compressed, boolean [N]."""
    if self.classes is None:
      return np.ones(np.shape(label), bool)
    return np.isin(label, self.classes)


def choose_classes(rule: str, num_classes: int, seed: int) -> tuple[int, ...]:
  """The classes that the experiment compresses: "half" of them drawn from a seed (Section 4),
  "odd" labels counted from 0 (protocol `authors`), or labels such as "0,3,5".

  Raises:
    InputError: an unknown rule, an unknown label, no class, or all classes.
  """
  if rule == "half":
    drawn = np.random.default_rng([seed, 4]).permutation(num_classes)[: num_classes // 2]
    classes = tuple(sorted(drawn.tolist()))
  elif rule == "odd":
    classes = tuple(range(1, num_classes, 2))
  else:
    try:
      classes = tuple(sorted({int(item) for item in rule.split(",") if item.strip()}))
    except ValueError as error:
      raise InputError(
        f"jpeg.classes={rule!r} must be half, odd, or labels such as 0,3,5"
      ) from error
  outside = [c for c in classes if not 0 <= c < num_classes]
  if outside:
    raise InputError(
      f"jpeg.classes: label {outside[0]} does not exist; there are {num_classes} classes, 0 to "
      f"{num_classes - 1}"
    )
  if not 0 < len(classes) < num_classes:
    raise InputError(
      f"jpeg.classes={rule!r} chooses {len(classes)} of {num_classes} classes; the experiment "
      "compares compressed with uncompressed classes, so choose at least one and not all"
    )
  return classes


def compress(image: Image.Image, quality: int, *, subsampling: str = "4:2:0") -> Image.Image:
  """The RGB image as it comes back from a JPEG file, at the same size.

  The paper uses quality 20 with 4:2:0 (Pillow's default), on the crop's native resolution, before
  it is resized. Deterministic for one Pillow and libjpeg.

  Raises:
    InputError: for another mode, a quality outside 1..95, or an unknown chroma subsampling.
  """
  check_quality(quality)
  if subsampling not in SUBSAMPLINGS:
    raise InputError(f"JPEG subsampling={subsampling!r} must be one of {', '.join(SUBSAMPLINGS)}")
  if image.mode != "RGB":
    raise InputError(f"image of mode {image.mode}, must be RGB; decode() gives that")
  file = io.BytesIO()
  image.save(file, "JPEG", quality=int(quality), subsampling=subsampling)
  with Image.open(file) as compressed:
    return compressed.copy()


def check_quality(quality: int) -> None:
  """Raises InputError unless it is Pillow's."""
  if quality not in QUALITIES:
    raise InputError(f"JPEG quality={quality!r} must be a whole number from 1 to 95")
