"""The experiments, in the order of the report: the one list of those that come with jprotop."""

from jprotop.experiments import (  # noqa: F401, I001
  head_on_stomach,
  success_rate,
  map_quality,
  alteration,
  twins,
  vanishing_head,
  explain,
  metrics,
  accuracy,
  training,
  ensemble,
  prune,
)
from jprotop.experiments.experiment import (
  EXPERIMENTS,
  Beside,
  Experiment,
  Flag,
  Passage,
  Pictures,
  register,
)

__all__ = ["EXPERIMENTS", "Beside", "Experiment", "Flag", "Passage", "Pictures", "register"]
