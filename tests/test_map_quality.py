"""Whether maps still say something, and that no verdict rests on maps that do not."""

import types

import jax.numpy as jnp
import numpy as np
import pytest
import study_results

from jprotop import statistics
from jprotop.experiments import map_quality, success_rate
from jprotop.runs.records import check_record

OWN = np.array([[0, 1], [0, 1], [0, 1], [2, -1], [2, -1]])


def test_peaks_are_those_of_each_image_s_own_maps():
  maps = np.random.default_rng(0).normal(size=(5, 3, 4, 3)).astype(np.float32)
  out = types.SimpleNamespace(similarity_map=jnp.asarray(maps))
  found = map_quality.peaks(out, {"own": jnp.asarray(np.maximum(OWN, 0))})
  for i, row in enumerate(OWN):
    for k, j in enumerate(row):
      if j >= 0:
        own = maps[i, :, :, j]
        assert float(found["peak"][i, k]) == pytest.approx(own.max() - own.mean(), rel=1e-5)
        assert int(found["cell"][i, k]) == own.argmax()


def test_the_means_leave_out_prototypes_that_there_are_not():
  peak = np.array([[1, 3], [2, 2], [3, 5], [7, 99], [9, 99]], np.float32)
  cell = np.array([[4, 0], [4, 1], [5, 2], [0, 9], [0, 9]])
  found = map_quality.numbers(OWN, peak, cell)
  assert found["peak_over_mean"]["value"] == pytest.approx(np.mean([2, 2, 4, 7, 9]))
  assert found["commonest_cell"]["value"] == pytest.approx(np.mean([2 / 3, 1 / 3, 1]))
  check_record({"num_images": 5, "num_cells": 12, **found}, map_quality.MapQuality, "map_quality")


def results(peak, consistent=20, same=0.4):
  """A study whose adversarial network's maps rise so far; the standard's rise by 3."""
  rng = np.random.default_rng(0)
  found = study_results.study()

  def quality(height, share):
    return {
      "num_images": 200,
      "num_cells": 49,
      "peak_over_mean": statistics.mean(height + 0.3 * rng.normal(size=200)),
      "commonest_cell": statistics.mean(share + 0.01 * rng.normal(size=24)),
    }

  def metrics(count):
    share = statistics.share(np.arange(24) < count)
    return {"measured": {"consistency": {"paper": {**share, "unit": "prototype"}}}}

  found["map_quality"] = {"standard": quality(3, 0.4), "adversarial": quality(peak, same)}
  found["metrics"] = {"standard": metrics(20), "adversarial": metrics(consistent)}
  return found


@pytest.mark.parametrize(
  ("changes", "how"),
  [
    ({"peak": 3.0}, ""),
    ({"peak": 1.6}, ""),
    ({"peak": 0.5}, "are flat"),
    ({"peak": 3.0, "consistent": 1}, "no longer sit on one part"),
    ({"peak": 3.0, "consistent": 8}, ""),
    ({"peak": 3.0, "same": 0.97}, "are highest in the same cell"),
    ({"peak": 3.0, "same": 0.85}, ""),
  ],
)
def test_no_verdict_rests_on_maps_that_collapsed(changes, how):
  found = results(**changes)
  verdicts = {claim["verdict"] for claim in success_rate.claims(found)}
  assert (how in map_quality.collapse(found)) and bool(how) == bool(map_quality.collapse(found))
  if how:
    assert verdicts == {"undecided"}
    assert all(how in claim["evidence"] for claim in success_rate.claims(found))
  else:
    assert "holds" in verdicts


def test_where_maps_were_not_measured_verdicts_stand():
  assert map_quality.collapse({}) == ""
  before = success_rate.claims(study_results.study())
  assert map_quality.unless_collapsed(before, study_results.study()) == before
