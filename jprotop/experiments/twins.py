"""Twins, a positive control of Section 4: can the pipeline find the use of artefacts at all?

  jprotop reproduce --config=twins --only=twins --workdir=runs/twins
  jprotop twins --workdir=runs/twins/altered

With --config.train.data.twins=True each class of any data set is split into two twins, and the
second one is altered: artefacts are all that tells twins apart. Every test image is seen as it is
and altered. A network that lives by the artefacts alone goes by them: without them, all images of
altered twins are taken for the other twin of their pair. To one that uses none both versions are
the same, and within the right pair half of them are.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Bool, Int

from jprotop import statistics
from jprotop.data.twins import is_altered, pair_of
from jprotop.errors import InputError
from jprotop.experiments.experiment import Beside, Experiment, Passage, Pictures, register
from jprotop.files import ensure_folder
from jprotop.prototypes import selectors
from jprotop.prototypes.see import see
from jprotop.report import canvas, tables, twin_charts
from jprotop.report.paper_tables import NETWORK_NAMES
from jprotop.report.verdicts import Rule, of_metric
from jprotop.runs.records import Paired, Record, Share
from jprotop.runs.run import Run

# Of full use, which is 1: what counts as most of it, and what as none.
_MOST, _NONE, _MARGIN = 0.5, 0.1, 0.05
VERSIONS = ("clean", "altered")
SIDES = ("altered_twins", "clean_twins")


class Sight(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
  """One version of the images of one kind of twin: in the right pair, of all; and in the right
  twin and in the other, of those in the right pair."""

  right_pair: Share
  right_twin: Share
  other_twin: Share


class Twins(Record):
  """What is predicted of the images of altered twins and of the others, clean and altered.

  goes_with_artefacts is over all test images: the share taken for an altered twin of any pair, of
  the altered version minus of the clean one. Full use of artefacts gives 1, none 0.
  """

  alteration: str
  parameter: float
  trained_on: str
  altered_twins: dict[str, Sight]
  clean_twins: dict[str, Sight]
  goes_with_artefacts: Paired


def _lack(config: Mapping[str, Any]) -> str:
  if config["train"]["data"]["twins"]:
    return ""
  return "classes that are twins: --config=twins, or --config.train.data.twins=True"


def measure(run: Run, out: pathlib.Path, *, beside: Beside | None = None) -> dict:
  """Looks at all test images in both versions; writes a figure.

  Raises:
    InputError: the classes of the run are no twins.
  """
  split, scheme = run.dataset.test, run.scheme.of_every_class()
  if lack := _lack(run.config):
    raise InputError(f"{run.workdir}: a run of twins needs {lack}; train one in another --workdir")
  size = run.config["compute"]["evaluation_batch_size"]
  predicted = {
    name: see(run.network, version, selectors.logits, batch_size=size, title=title).argmax(axis=1)
    for name, version, title in (
      ("clean", split, "original images"),
      ("altered", split.altered(scheme), "altered images"),
    )
  }
  record = {
    "alteration": scheme.name,
    "parameter": scheme.parameter,
    "trained_on": run.config["train"]["network"],
    **numbers(split.label, predicted),
  }
  ensure_folder(out / "figures")
  canvas.save(twin_charts.predictions(record), out / "figures/twins.png")
  return record


def numbers(
  label: Int[np.ndarray, " N"], predicted: Mapping[str, Int[np.ndarray, " N"]]
) -> dict[str, Any]:
  """The shares of `Twins`, from the twin predicted for each version of each image."""
  sides = {"altered_twins": is_altered(label), "clean_twins": ~is_altered(label)}
  taken = {name: is_altered(predicted[name]) for name in VERSIONS}
  return {
    **{
      side: {name: _sight(label[chosen], predicted[name][chosen]) for name in VERSIONS}
      for side, chosen in sides.items()
    },
    "goes_with_artefacts": statistics.paired_difference(taken["altered"], taken["clean"]),
  }


def _sight(label: Int[np.ndarray, " N"], predicted: Int[np.ndarray, " N"]) -> dict[str, dict]:
  in_pair: Bool[np.ndarray, " N"] = pair_of(predicted) == pair_of(label)
  right = (predicted == label)[in_pair]
  return {
    "right_pair": statistics.share(in_pair),
    "right_twin": statistics.share(right),
    "other_twin": statistics.share(~right),
  }


def tell(record: Mapping[str, Any], out: pathlib.Path) -> Iterator[str]:
  """What the command prints."""
  yield f"{record['alteration'].upper()}, parameter {record['parameter']:g}:"
  for side in SIDES:
    for name in VERSIONS:
      found = {key: tables.format_share(share) for key, share in record[side][name].items()}
      yield (
        f"  {side.replace('_', ' ')}, {name:<7} in the right pair {found['right_pair']}; of those "
        f"in the right twin {found['right_twin']}"
      )
  moved = tables.format_metric(record["goes_with_artefacts"])
  yield f"  taken for an altered twin, altered minus clean version: {moved}; full use 1, none 0"
  yield f"  figure in {out}/figures"


def claims(results: Mapping[str, Any]) -> list[dict]:
  """What the control must show for the pipeline to be believed where it finds nothing."""
  found = results.get("twins", {})
  altered, standard = (
    found.get(network, {}).get("goes_with_artefacts") for network in ("altered", "standard")
  )
  misled = found["altered"]["altered_twins"]["clean"]["other_twin"] if "altered" in found else None
  place, full = "Positive control", "; full use of artefacts gives 1, none 0"
  return [
    *of_metric(
      "Where only artefacts tell twins apart, images are taken for an altered twin with them and "
      "not without",
      place,
      ("taken for an altered twin, altered minus clean version of the same images", altered),
      Rule(_MARGIN, _MOST),
      note=full,
      ours=True,
    ),
    *of_metric(
      "Without their artefacts, images of altered twins are taken for the other twin of the pair",
      place,
      ("share of those within the right pair", misled),
      Rule(_MARGIN, 0.5),
      note="; full use gives 1, none 0.5",
      ours=True,
    ),
    *of_metric(
      "In a network that never saw artefacts they decide nothing",
      place,
      ("taken for an altered twin, altered minus clean, standard network", standard),
      Rule(_MARGIN, _NONE, "below"),
      note=full,
      ours=True,
    ),
  ]


_IMAGES = {
  ("altered_twins", "clean"): ("altered twins", "without their artefacts", "0%", "50%"),
  ("altered_twins", "altered"): ("altered twins", "as in training", "100%", "50%"),
  ("clean_twins", "clean"): ("clean twins", "as in training", "100%", "50%"),
  ("clean_twins", "altered"): ("clean twins", "with artefacts", "0%", "50%"),
}


def _rows(found: Mapping[str, Any]) -> list[dict]:
  return [
    {
      "network": NETWORK_NAMES[network],
      "images": images,
      "version": version,
      **record[side][name],
      "full": full,
      "none": none,
    }
    for network, record in found.items()
    for (side, name), (images, version, full, none) in _IMAGES.items()
  ]


register(
  Experiment(
    name="twins",
    summary="a positive control: classes that artefacts alone tell apart",
    measure=measure,
    record=Twins,
    networks=("altered", "standard"),
    settings=("alteration",),
    lacks=_lack,
    tell=tell,
    passages=(
      Passage(
        heading="Can the use of artefacts be found at all? (positive control)",
        caption="Each class was split into two twins, whose images come from the same pool; the "
        "altered network saw those of the second twin altered, in all splits. So artefacts are all "
        "that tells twins apart. The table says where test images go: into the right pair, and, of "
        "those, into the right twin; beside it what a network would give that goes by the "
        "artefacts alone (full use), and one that does not see them (none). If the altered network "
        "is near full use, the pipeline finds the effect where there is one, so that where it "
        "finds little in another study, there is little. The standard network learnt both twins "
        "without artefacts: it can only guess.",
        rows=_rows,
        columns={
          "network": "Network",
          "images": "Test images of",
          "version": "Shown",
          "right_pair": "Within the right pair",
          "right_twin": "Of those, in the right twin",
          "full": "Full use",
          "none": "No use",
        },
        pictures=tuple(
          Pictures(network=network, pattern="twins.png") for network in ("altered", "standard")
        ),
      ),
    ),
    claims=claims,
  )
)
