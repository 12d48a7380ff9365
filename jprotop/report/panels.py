"""Figure 1 of the paper and the gallery of prototypes."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Bool
from matplotlib.figure import Figure

from jprotop.errors import InputError
from jprotop.report import canvas
from jprotop.report.drawing import crop, draw_box, show_image
from jprotop.report.page import (
  Page,
  Prototype,
  View,
  check_prototype,
  check_view,
  shared_scale,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackedExample:
  """One attacked image and the prototype that was to move, all that Figure 1 shows of them.

  noise_mask are the pixels that the noise may change. moved: whether the maximum of the
  prototype's map is now in S_noisy; None leaves it unsaid.
  """

  prototype: Prototype
  clean: View
  attacked: View
  noise_mask: Bool[np.ndarray, "H W"]
  true_class: str
  image_id: str | int
  moved: bool | None = None


_VERDICTS = {
  True: "Moved: with noise, the strongest cell lies in the green outline.",
  False: "Not moved: with noise, the strongest cell does not lie in the green outline.",
  None: "",
}


def attacked_image(example: AttackedExample, *, noise_gain: int | None = 16) -> Figure:
  """Figure 1: the prototype and its source; where it is found in the clean and the noisy image.

  Both heat maps share one scale, printed beside them. noise_gain adds a last picture, the noise
  |attacked - clean| times that factor; None leaves it out.
  """
  clean, noisy = views = example.clean, example.attacked
  check_prototype(example.prototype)
  for name, view in (("clean", clean), ("attacked", noisy)):
    check_view(view, name, clean.image.shape[:2])
  if np.shape(example.noise_mask) != clean.image.shape[:2]:
    raise InputError(
      f"noise_mask is {np.shape(example.noise_mask)}, but the image {clean.image.shape[:2]}; use "
      "one size"
    )
  page = Page(columns=5 if noise_gain else 4)
  page.left_columns(example.prototype)
  scale = shared_scale(views)
  kept = noisy.predicted == clean.predicted
  title = f"With noise, {'still' if kept else 'now'} predicted"
  page.row(0, "Clean, predicted", clean, scale)
  page.row(1, title, noisy, scale, mask=np.asarray(example.noise_mask, bool))
  if noise_gain:
    noise = np.abs(np.asarray(noisy.image, np.float32) - clean.image)
    axes = page.panel(4, 0.5, f"The noise alone\n{noise_gain} times stronger")
    show_image(axes, np.clip(noise_gain * noise, 0, 1))
  page.scale_bar(scale)
  title = f"Image {canvas.plain(example.image_id)}: {canvas.class_label(example.true_class)}"
  marks = {
    "high similarity to the prototype": canvas.BOX_YELLOW,
    "pixels that the noise may change": canvas.NOISE_GREEN,
  }
  page.caption(title, marks, verdict=_VERDICTS[example.moved])
  return page.figure


def prototype_gallery(
  prototypes: Iterable[Prototype], *, max_classes: int = 15, max_prototypes: int = 40
) -> Iterator[Figure]:
  """All prototypes, a band a class: the patch above, its source image with the box below.

  A figure holds at most max_classes classes and, so that its file stays small, at most
  max_prototypes prototypes (more only if a single class has more).

  Args:
    prototypes: class by class, with known sources. Consumed as pages are asked for, so that the
      images of all of them are never held at once.
  """
  page: list[tuple[str, list[Prototype]]] = []
  for name, members in itertools.groupby(prototypes, lambda p: p.prototype_class):
    group = list(members)
    count = sum(len(shown) for _, shown in page) + len(group)
    if page and (len(page) == max_classes or count > max_prototypes):
      yield _gallery_page(page)
      page = []
    page.append((name, group))
  if page:
    yield _gallery_page(page)


def _gallery_page(groups: list[tuple[str, list[Prototype]]]) -> Figure:
  side, gap, head, caption = 1.15, 0.1, 0.32, 0.34
  columns = max(len(members) for _, members in groups)
  band = head + 2 * side + gap / 2 + caption
  width = max(columns * (side + gap) + gap, 3.2)
  height = len(groups) * band + gap
  figure = Figure(figsize=(width, height), facecolor="white")
  for index, (name, members) in enumerate(groups):
    top = height - gap - index * band
    label = {"fontsize": 9.5, "fontweight": "bold", "va": "top", "color": canvas.INK}
    figure.text(gap / width, top / height, canvas.class_label(name), **label)
    for column, prototype in enumerate(members):
      if (source := prototype.source) is None:
        raise InputError(f"where prototype {prototype.prototype_id} comes from is not known")
      left, bottom = gap + column * (side + gap), top - head + 0.06 - side
      size = side / width, side / height
      patch = figure.add_axes((left / width, bottom / height, *size))
      show_image(patch, crop(source.image, source.box))
      bottom -= side + gap / 2
      whole = figure.add_axes((left / width, bottom / height, *size))
      show_image(whole, source.image)
      draw_box(whole, source.box, width=1.2)
      image = f"image {source.image_id}"
      text = f"prototype {prototype.prototype_id}\n{canvas.plain(image, max_length=19)}"
      place = left / width, (bottom - 0.04) / height
      figure.text(*place, text, fontsize=6.5, linespacing=1.2, va="top", color=canvas.GREY)
  return figure
