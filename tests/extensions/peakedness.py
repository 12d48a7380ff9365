"""A metric: how peaked the map of each test image's top prototype is, as an experiment.

jprotop peakedness --workdir=RUN --config.extensions=peakedness.py
"""

import numpy as np

from jprotop import statistics
from jprotop.experiments import Experiment, Flag, Passage, register
from jprotop.prototypes import selectors
from jprotop.prototypes.see import see
from jprotop.report.tables import format_metric
from jprotop.runs.records import Mean, Record


class Peakedness(Record):
  """Maximum of the map minus its mean, in units of similarity."""

  top: int
  peak_over_mean: Mean


def measure(run, out, *, top=1, beside=None):
  size = run.config["compute"]["evaluation_batch_size"]
  maps = see(run.network, run.dataset.test, selectors.everything, batch_size=size)["similarity_map"]
  peaks = np.sort((maps.max((1, 2)) - maps.mean((1, 2))), axis=1)[:, -top:]
  return {"top": top, "peak_over_mean": statistics.mean(peaks.mean(axis=1))}


def rows(found):
  return [{"network": name, "peak": record["peak_over_mean"]} for name, record in found.items()]


register(
  Experiment(
    name="peakedness",
    summary="how peaked similarity maps are",
    measure=measure,
    record=Peakedness,
    networks=("standard", "adversarial"),
    flags=(Flag(name="top", kind=int, default=1, help="Prototypes of each image.", least=1),),
    tell=lambda record, out: [f"Peak over mean {format_metric(record['peak_over_mean'])}"],
    passages=(
      Passage(
        heading="How peaked the maps are",
        caption="The maximum of the map of an image's top prototypes minus the map's mean.",
        rows=rows,
        columns={"network": "Network", "peak": "Peak over mean"},
      ),
    ),
  )
)
