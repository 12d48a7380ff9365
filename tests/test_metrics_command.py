"""`jprotop metrics`: the same numbers from a run's images, from its maps in a file, and by hand."""

import json
import os
import re
import warnings

import numpy as np
import pytest
from absl import flags as absl_flags
from metric_arrays import world

from jprotop import metrics
from jprotop.cli import measuring
from jprotop.data.batches import to_float
from jprotop.errors import InputError
from jprotop.experiments import EXPERIMENTS
from jprotop.experiments import metrics as experiment
from jprotop.metrics.noise import add_noise
from jprotop.prototypes import selectors
from jprotop.prototypes.see import see
from jprotop.runs import run as runs
from jprotop.runs.records import check_record

SIZE = 40


@pytest.fixture
def opened(run, monkeypatch):
  monkeypatch.setenv("JPROTOP_CACHE", str(run[1]))
  return runs.open_run(run[0])


def maps_of(opened, images):
  return see(opened.network, images, selectors.maps, batch_size=8)["similarity_map"]


@pytest.fixture
def arrays(opened):
  """All that the command reads of a run, at once."""
  test = opened.seen.test
  images = to_float(test.pixels[:])
  noisy = add_noise(images, np.arange(len(test)), seed=opened.config["measure"]["seed"])
  return {
    "maps": maps_of(opened, images),
    "noisy_maps": maps_of(opened, noisy),
    "labels": test.label,
    "prototype_class": np.array(opened.model.prototype_class),
    "parts": np.stack([test.part_points(i) for i in range(len(test))]),
    "weights": np.asarray(opened.variables["params"]["last_layer"]),
    "pairs": np.array(metrics.CUB_PAIRS),
    "image_size": np.array(test.image_size),
  }


def number(estimate):
  return {**estimate.as_record(), "unit": estimate.unit}


def close(found, wanted):
  """Maps of batches of another size may be rounded otherwise."""
  assert found.keys() == wanted.keys() and found["total"] == wanted["total"]
  assert found["value"] == pytest.approx(wanted["value"], abs=1e-3)
  assert found["interval"] == pytest.approx(wanted["interval"], abs=5e-3)


def test_a_run_has_the_numbers_of_its_maps(opened, arrays, tmp_path):
  found = experiment.measure(opened, tmp_path / "run")
  check_record(json.loads(json.dumps(found, allow_nan=False)), experiment.Metrics, "metrics")
  data = arrays["maps"], arrays["parts"], arrays["labels"], arrays["prototype_class"]
  size = int(arrays["image_size"])
  wanted = {
    "consistency": metrics.consistency(*data, image_size=size),
    "stability": metrics.stability(data[0], arrays["noisy_maps"], *data[1:], image_size=size),
    "purity": metrics.purity(data[0], data[1], weights=arrays["weights"], image_size=size),
    "distinctiveness": metrics.distinctiveness(data[0], *data[2:], image_size=size),
    "local_size": metrics.local_size(data[0].max(axis=(1, 2))),
  }
  for name, estimate in wanted.items():
    close(found["measured"][name]["paper"], number(estimate))
  assert found["num_images"] == len(arrays["maps"]) and found["noise"] == "gaussian"
  # ToyBirds have parts, and no masks.
  assert found["missing"].keys() == {
    "comprehensiveness", "pointing_game_energy", "pointing_game_mask", "quanproto_overlap",
  }  # fmt: skip
  assert all("no object masks" in reason for reason in found["missing"].values())
  assert len(found["consistency_curve"]) == 20
  assert (tmp_path / "run/figures/metrics_consistency.png").stat().st_size > 5000
  told = "\n".join(experiment.tell(found, tmp_path))
  assert "two passes" in told and "not measured: the data have no object masks" in told
  # The same arrays in a file.
  np.savez(tmp_path / "maps.npz", **arrays)
  of_file = experiment.measure(None, tmp_path / "file", maps=str(tmp_path / "maps.npz"))
  assert of_file["weights"] == found["weights"] and of_file["missing"] == found["missing"]
  assert of_file["measured"].keys() == found["measured"].keys()
  for name, variants in of_file["measured"].items():
    for variant, one in variants.items():
      # The release's places of parts are those of the file.
      if (name, variant) not in (("consistency", "released"), ("stability", "released")):
        close(one, found["measured"][name][variant])


@pytest.fixture
def file(tmp_path):
  """Writes arrays, of which some are changed or left out, and measures them."""
  w = world(4, SIZE)
  given = {
    "maps": w.maps, "noisy_maps": w.noisy, "labels": w.labels, "masks": w.masks,
    "prototype_class": w.prototype_class, "parts": w.parts, "image_size": np.array(SIZE),
  }  # fmt: skip

  def measured(**changes):
    arrays = {name: array for name, array in {**given, **changes}.items() if array is not None}
    np.savez(tmp_path / "x.npz", **arrays)
    return experiment.measure(None, tmp_path / "out", maps=str(tmp_path / "x.npz"))

  return measured


def test_a_file_with_masks_has_every_metric_over_batches(file, monkeypatch):
  found = file()
  check_record(found, experiment.Metrics, "metrics")
  assert not found["missing"] and found["weights"] is None
  assert len(found["measured"]) == 10
  w = world(4, SIZE)
  wanted = metrics.pointing_game_energy(
    w.maps, w.masks, w.labels, w.prototype_class, image_size=SIZE
  )
  assert found["measured"]["pointing_game_energy"]["paper"] == number(wanted)
  monkeypatch.setattr("jprotop.experiments.metrics_arrays._AT_ONCE", 4)
  assert file() == found


def test_what_a_file_lacks_is_listed_and_the_rest_is_measured(file):
  found = file(parts=None, noisy_maps=None)
  assert {"consistency", "purity", "stability", "quanproto_consistency"} == found["missing"].keys()
  assert "no part annotations" in found["missing"]["consistency"]
  assert "distinctiveness" in found["measured"] and found["consistency_curve"] == []
  # Similarities below 0 have no local size; it is said for that metric alone.
  w = world(4, SIZE)
  assert "above 0" in file(maps=w.maps - 2, noisy_maps=None)["missing"]["local_size"]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"labels": None}, "lacks labels"),
    ({"boxes": np.zeros(4)}, "holds boxes too"),
    ({"maps": world(4, SIZE).maps[0]}, r"\[N, h, w, K\]"),
    ({"maps": np.full((11, 4, 5, 6), np.nan, np.float32)}, "nan in image 0"),
    ({"noisy_maps": world(4, SIZE).maps[:, 1:]}, "same grid"),
    ({"image_size": np.array(224)}, r"\[11, 224, 224\]"),
    ({"weights": np.ones((5, 3))}, "5 rows, but there are 6"),
    ({"labels": np.zeros(11, object)}, "cannot be read as arrays"),
    ({"maps": np.full((11, 4, 5, 6), "?")}, "maps in .* is of type <U1; give real numbers"),
    ({"pairs": np.arange(3)}, r"pairs is int64 of the shape \(3,\)"),
    ({"image_size": np.array(0)}, "image_size is 0"),
  ],
)
def test_a_file_that_does_not_fit_is_refused(file, changes, message):
  with pytest.raises(InputError, match=message):
    file(**changes)


def test_no_file_and_no_arrays_are_refused(tmp_path):
  (tmp_path / "x.npz").write_text("not arrays")
  os.mkfifo(tmp_path / "pipe.npz")  # To read it would never end.
  for name in ("x.npz", "none.npz", "pipe.npz"):
    with pytest.raises(InputError, match=rf"{name} cannot be read .*numpy\.savez"):
      experiment.measure(None, tmp_path, maps=str(tmp_path / name))


def test_the_command_measures_a_file_in_place_of_a_run(file, tmp_path, capsys):
  file()
  maps = f"--maps={tmp_path / 'x.npz'}"
  with pytest.raises(InputError, match="--out is missing"):
    _command(maps)
  with pytest.raises(InputError, match="exclude each other"):
    _command(maps, f"--workdir={tmp_path}", f"--out={tmp_path}")
  _command(maps, f"--out={tmp_path / 'there'}")
  written = json.loads((tmp_path / "there/metrics.json").read_text())
  assert written["measured"]["consistency"]["paper"]["unit"] == "prototype"
  assert re.search(r"consistency +paper +\d", capsys.readouterr().out)


def _command(*arguments):
  before = set(absl_flags.FLAGS)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore", DeprecationWarning)  # How ml_collections loads a file.
      measuring.define_flags(EXPERIMENTS["metrics"])
    absl_flags.FLAGS(["metrics", *arguments])
    measuring.measure(EXPERIMENTS["metrics"])
  finally:
    for name in set(absl_flags.FLAGS) - before:
      delattr(absl_flags.FLAGS, name)
    absl_flags.FLAGS.unparse_flags()
