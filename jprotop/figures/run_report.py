"""The report of one run, from results.json, history.jsonl and the figures in its folder."""

import pathlib

from jprotop.figures.report import Picture, Section, write_report

# Pages of the gallery that go into the report; the rest stay beside it in figures/.
_GALLERY_PAGES = 6

# What each kind of figure shows: (file pattern, heading, caption), in the order of reading.
_SECTIONS = (
  (
    "head_on_stomach_*.png",
    "Where a prototype is found, before and after",
    "The layout of the paper's Figure 1. Left: the training image that the prototype comes from, "
    "and the prototype itself. Top row: the clean image and where the network finds the prototype "
    "(yellow). Bottom row: the same image with noise inside the green outline only. Compare the "
    "yellow boxes, and the similarities printed above them. Both heat maps share one scale. Shown "
    "are the first attacked images, those first on which a prototype was to move from head to "
    "stomach; each title says whether it moved.",
  ),
  (
    "similarity_shift.png",
    "Every attacked image",
    "Similarity of the attacked prototype inside S, where it was found, and inside S_noisy, where "
    "it was to be moved, before and after the attack; one line an image. The explanation fails "
    "where a line on the right ends above where the same image's line on the left ends.",
  ),
  (
    "training_curves.png",
    "How the network was trained",
    "Accuracy and losses over the epochs of the phases. The push replaces every prototype by a "
    "patch of a training image; a drop there is what that costs before the last layer is tuned.",
  ),
  (
    "confusion_test.png",
    "Which classes are confused",
    "Test images: rows are the true classes, columns the predicted ones.",
  ),
  (
    "gallery_*.png",
    "All prototypes",
    "Each prototype is a patch of a training image of its class: the patch above, the image below "
    "with the box of high activation.",
  ),
)


def write_run_report(workdir: pathlib.Path, results: dict) -> pathlib.Path:
  """Writes report.html into a run's folder from `results` and the figures found there."""
  sections = []
  for pattern, heading, caption in _SECTIONS:
    files = sorted((workdir / "figures").glob(pattern))
    if not files:
      continue
    shown = files[:_GALLERY_PAGES]
    if len(files) > len(shown):
      caption += f" The first {len(shown)} of {len(files)} pages; the others are in figures/."
    pictures = [
      Picture(path.read_bytes(), f"{heading}: {path.stem.replace('_', ' ')}") for path in shown
    ]
    sections.append(Section(heading=heading, caption=caption, pictures=pictures))
  return write_report(workdir / "report.html", results=results, figures=sections)
