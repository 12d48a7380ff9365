"""The transfer between networks in words, and its parts of the report."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from jprotop.experiments.experiment import Passage, Pictures
from jprotop.report import tables
from jprotop.report.paper_tables import NETWORK_NAMES


def tell(record: Mapping[str, Any], out: pathlib.Path) -> Iterator[str]:
  """What the command prints."""
  yield (
    f"Transfer between {len(record['networks'])} networks, {len(record['images'])} images, eps "
    f"{255 * record['budget']['eps']:.3g}/255, noise anywhere in the image:"
  )
  for cell in record["cells"]:
    moved, control = (tables.format_share(cell[name]) for name in ("moved", "control"))
    yield f"  {cell['source']} -> {cell['victim']}: {moved}; random noise {control}"
  yield from (f"  {text}" for text in _masked(record))
  yield f"  figure in {out}/figures/transfer.png"


def _masked(record: Mapping[str, Any]) -> Iterator[str]:
  """Where a network's gradients hide what other networks' gradients find."""
  for row in record["missed"]:
    if count := row["moved_by_others"]:
      yield (
        f"{row['victim']}: {count} of the {row['missed']} images that its own gradients did not "
        "move are moved by noise of other networks: its gradients are masked"
      )


def _rows(found: Mapping[str, Any]) -> list[dict]:
  return [
    {**cell, "source": _called(cell["source"]), "victim": _called(cell["victim"])}
    for record in found.values()
    for cell in record["cells"]
  ]


def _called(name: str) -> str:
  return NETWORK_NAMES.get(name, name)


def _missed_rows(found: Mapping[str, Any]) -> list[dict]:
  return [
    {
      "victim": _called(row["victim"]),
      "missed": f"{row['missed']} of {len(record['images'])}",
      "by_others": row["moved_by_others"],
      "masked": "masked" if row["moved_by_others"] else "no sign of masking",
    }
    for record in found.values()
    for row in record["missed"]
  ]


PASSAGES = (
  Passage(
    heading="Does the noise transfer to other networks?",
    caption="Noise anywhere in the image, made on one network to move its own top prototype "
    "of each image, is shown to the others. Moved: the other network's own top prototype is "
    "found more strongly outside its own S than inside. Rows of the picture are the networks "
    "that the noise was made on; its last row is random noise of the same size. All are of "
    "the same images, which all networks classify correctly.",
    rows=_rows,
    columns={
      "source": "Noise made on",
      "victim": "Seen by",
      "moved": "Moved",
      "control": "Random noise",
      "moved_minus_control": "Difference",
      "moved_and_prediction_kept": "Moved, and predicted class kept",
    },
    pictures=(Pictures(network="standard", pattern="transfer.png"),),
  ),
  Passage(
    heading="Are gradients masked?",
    caption="Images on which noise made on a network itself did not move its prototype, and "
    "how many of these the noise of another network moved, within the same bounds. Where "
    "there are such, the network's gradients hide what is there to be found: they are masked, "
    "and its success rate says too little.",
    rows=_missed_rows,
    columns={
      "victim": "Network",
      "missed": "Missed with its own gradients",
      "by_others": "Of these moved by another network's noise",
      "masked": "Gradients",
    },
  ),
)
