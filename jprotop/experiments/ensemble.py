"""Several networks together: accuracy of their summed class scores (Chen et al. 2019).

jprotop ensemble --workdir=RUN --members=RUN2,RUN3
"""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jprotop.errors import InputError
from jprotop.experiments.experiment import Beside, Experiment, Flag, check_distinct, register
from jprotop.prototypes import accuracy, selectors
from jprotop.prototypes.see import see
from jprotop.report import tables
from jprotop.runs import run as runs
from jprotop.runs.records import Record, Share
from jprotop.runs.run import Run


class SplitEnsemble(Record):
  """Accuracy of all members together, and of each."""

  members: list[str]
  clean: Share
  single: list[Share]


def measure(
  run: Run,
  out: pathlib.Path,
  *,
  members: Sequence[str] | None = None,
  split: str = "test",
  beside: Beside | None = None,
) -> dict:
  """Accuracy of summed logits, each network on the images as they are."""
  images, size = run.dataset.split(split), run.config["compute"]["evaluation_batch_size"]
  if not members:
    raise InputError("--members is missing; name the other runs, as in --members=RUN2,RUN3")
  check_distinct([run.workdir, *members], "members")
  networks = [run, *(runs.open_run(folder, run.dataset) for folder in members)]
  scores = [see(n.network, images, selectors.logits, batch_size=size) for n in networks]
  return {
    split: {
      "members": [str(network.workdir) for network in networks],
      "clean": accuracy.accuracy(accuracy.sum_logits(scores), images.label),
      "single": [accuracy.accuracy(s, images.label) for s in scores],
    }
  }


def tell(record: Mapping[str, Any], out: pathlib.Path) -> Iterator[str]:
  """What the command prints."""
  for split, numbers in record.items():
    text = tables.format_share(numbers["clean"])
    yield f"{split} accuracy of {len(numbers['members'])} networks {text}"


register(
  Experiment(
    name="ensemble",
    summary="accuracy of several networks together",
    measure=measure,
    record=dict[str, SplitEnsemble],
    flags=(
      Flag(name="members", kind=list, help="Other runs on the same data, whose logits are added."),
      Flag(
        name="split",
        default="test",
        help="Which images.",
        choices=("train", "validation", "test"),
      ),
    ),
    tell=tell,
    merge=lambda before, now: {**(before or {}), **now},
  )
)
