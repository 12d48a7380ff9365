"""Noise of one network on another: who moved, and what that says of the victim's gradients."""

import json

import numpy as np
import pytest

from jprotop.attacks import transfer
from jprotop.errors import InputError
from jprotop.experiments import transfer_numbers
from jprotop.experiments.transfer import measure as measure_transfer
from jprotop.experiments.transfer_text import tell
from jprotop.prototypes.accuracy import unpacked
from jprotop.report import transfer_charts
from jprotop.runs.config import NETWORKS


def test_a_prototype_has_left_where_it_is_stronger_outside_of_s_than_anywhere_inside():
  rng = np.random.default_rng(0)
  maps, source = rng.integers(0, 4, (50, 3, 3)).astype(float), rng.random((50, 3, 3)) < 0.4
  for found, each, cells in zip(transfer.left(maps, source), maps, source):
    inside, outside = each[cells].tolist(), each[~cells].tolist()
    assert found == (max(outside, default=-np.inf) > max(inside, default=-np.inf))


MOVED = {
  ("a", "a"): [1, 0, 0, 0],
  ("b", "a"): [1, 1, 0, 0],
  ("c", "a"): [0, 0, 1, 0],
  ("a", "b"): [0, 0, 0, 1],
  ("b", "b"): [1, 1, 1, 1],
  ("c", "b"): [0, 0, 0, 0],
  ("a", "c"): [0, 0, 0, 0],
  ("b", "c"): [0, 0, 0, 0],
  ("c", "c"): [0, 0, 1, 0],
}


def cells():
  moved = {pair: np.array(hits, bool) for pair, hits in MOVED.items()}
  none, kept = np.zeros(4, bool), np.array([True, False, True, True])
  return moved, [transfer_numbers.cell(*pair, hits, none, kept) for pair, hits in moved.items()]


def test_gradients_are_masked_where_others_noise_moves_what_a_networks_own_missed():
  moved, _ = cells()
  assert transfer_numbers.missed(["a", "b", "c"], moved) == [
    {"victim": "a", "missed": 3, "moved_by_others": 2},
    {"victim": "b", "missed": 0, "moved_by_others": 0},
    {"victim": "c", "missed": 3, "moved_by_others": 0},
  ]


def test_a_cell_counts_images_beside_its_control():
  _, found = cells()
  cell = found[1]
  assert (cell["source"], cell["victim"], cell["moved"]["count"]) == ("b", "a", 2)
  assert cell["moved_and_prediction_kept"]["count"] == 1
  assert cell["moved_minus_control"]["value"] == pytest.approx(0.5)
  assert unpacked(cell["hits"], 4).tolist() == [True, True, False, False]


def test_the_picture_has_a_row_for_random_noise():
  _, found = cells()
  figure = transfer_charts.matrix(["a", "b", "c"], found)
  texts = [text.get_text() for text in figure.axes[0].texts]
  assert len(texts) == 12 and texts[1] == "25%\n1/4" and texts[3] == "50%\n2/4"
  assert texts[9:] == ["0%\n0/4"] * 3


def test_a_study_compares_its_four_networks_on_the_same_images(study):
  workdir, _, _ = study
  results = json.loads((workdir / "results.json").read_text())
  record = results["transfer"]["standard"]
  assert record["networks"] == list(NETWORKS)
  pairs = [(cell["source"], cell["victim"]) for cell in record["cells"]]
  assert pairs == [(a, b) for a in NETWORKS for b in NETWORKS]
  assert {cell["moved"]["total"] for cell in record["cells"]} == {len(record["images"])}
  # Random noise is the same whoever the source is.
  for victim in NETWORKS:
    controls = [cell["control"] for cell in record["cells"] if cell["victim"] == victim]
    assert all(control == controls[0] for control in controls)
  assert (workdir / "standard/figures/transfer.png").exists()
  lines = list(tell(record, workdir))
  assert any("standard -> adversarial: " in line for line in lines)


def test_others_are_needed():
  with pytest.raises(InputError, match="--others is missing"):
    measure_transfer(None, None)
