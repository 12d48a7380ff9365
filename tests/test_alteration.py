"""Images with and without artefacts: which count, which prototype is followed, and the command."""

import json

import jax
import numpy as np
import pytest
from miniature import drawn_split

from jprotop.cli.measuring import measure_into
from jprotop.data import batches
from jprotop.errors import InputError
from jprotop.experiments import EXPERIMENTS, alteration
from jprotop.experiments import alteration_numbers as numbers_of
from jprotop.experiments.alteration_numbers import Alteration, Sightings
from jprotop.experiments.experiment import Beside
from jprotop.prototypes import selectors
from jprotop.prototypes.accuracy import unpacked, unpacked_numbers
from jprotop.prototypes.see import Network, see
from jprotop.runs import run as runs
from jprotop.runs.records import check_record


def _seen(seed, *, levels=5):
  """30 images with made activations, many of them equal, and cells on a 3 x 4 grid."""
  count, prototypes, classes = 30, 6, 3
  rng = np.random.default_rng(seed)
  cell = np.stack(
    [rng.integers(0, 3, (count, prototypes)), rng.integers(0, 4, (count, prototypes))], axis=-1
  )
  activations = rng.integers(0, levels, (count, prototypes)).astype(np.float32)
  return Sightings(rng.random((count, classes)), activations, cell.astype(np.int16))


LABEL = np.arange(30) % 3
PROTOTYPE_CLASS = (0, 0, 1, 1, 2, 2)


def _rows(altered, clean, label=LABEL, classes=(0, 2), prototypes=PROTOTYPE_CLASS, top_k=5):
  return {
    **numbers_of.per_image(altered, clean, top_k=top_k),
    **numbers_of.by_kind(altered, clean, label, classes, prototypes),
  }


def _drift(altered, clean, label, classes, prototypes=PROTOTYPE_CLASS, top_k=5):
  rows = _rows(altered, clean, label, classes, prototypes, top_k)
  return numbers_of.drift(rows, label, altered.prediction, classes)


def _slow_row(altered, clean, i, k):
  """One image of `per_image`, as the paper says it."""

  def order(seen):
    return sorted(range(len(seen)), key=lambda p: (-seen[p], p))

  a, b = altered.activations[i], clean.activations[i]
  ours, theirs = order(a)[:k], order(b)[:k]
  top, other = ours[0], theirs[0]
  (y0, x0), (y1, x1) = altered.cell[i, top].tolist(), clean.cell[i, top].tolist()
  return {
    "prototype": top,
    "similarity_altered": a[top],
    "similarity_clean": b[top],
    "similarity_drop": a[top] - b[top],
    "similarity_drop_reverse": b[other] - a[other],
    "top_k_overlap": len(set(ours) & set(theirs)) / len(ours),
    "top_k_order_kept": ours == theirs,
    "top_prototype_kept": top == other,
    "cell_moved": (y0, x0) != (y1, x1),
    "cell_shift": ((y0 - y1) ** 2 + (x0 - x1) ** 2) ** 0.5,
    # Prototypes 2 and 3 are of class 1, which is not altered.
    "shift": np.mean([a[p] - b[p] for p in (0, 1, 4, 5)]) - np.mean([a[p] - b[p] for p in (2, 3)]),
    "right_group_clean": (clean.logits[i].argmax() == 1) == (LABEL[i] == 1),
    "right_group_altered": (altered.logits[i].argmax() == 1) == (LABEL[i] == 1),
  }


def test_one_pass_sees_what_the_network_says(tiny):
  model, variables = tiny
  split = drawn_split(5)
  seen = Sightings(**see(Network(*tiny), split, selectors.cells, batch_size=4))
  out = jax.jit(model.apply)(variables, batches.to_float(split.pixels))
  np.testing.assert_allclose(seen.logits, out.logits, atol=1e-4)
  np.testing.assert_allclose(seen.activations, out.activations, atol=1e-4)
  maps = np.asarray(out.similarity_map)
  assert maps.shape[1:3] == (4, 4) and len(np.unique(seen.cell[..., 0] * 4 + seen.cell[..., 1])) > 1
  for i, p in np.ndindex(seen.activations.shape):
    place = np.unravel_index(maps[i, :, :, p].argmax(), (4, 4))
    assert tuple(seen.cell[i, p]) == place


@pytest.mark.parametrize("top_k", [1, 3, 9])
def test_every_image_equals_its_slow_twin(top_k):
  altered, clean = _seen(1), _seen(2)
  rows = _rows(altered, clean, top_k=top_k)
  for i in range(30):
    for name, value in _slow_row(altered, clean, i, top_k).items():
      assert rows[name][i] == pytest.approx(value), name


def test_the_paper_counts_altered_classes_whose_altered_version_is_right():
  label, prediction = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0])
  groups = numbers_of.selections(label, prediction, (0, 2))
  assert groups["paper"].tolist() == [True, False, False, False, False]
  assert groups["altered_classes"].tolist() == [True, True, False, False, True]
  assert groups["other_classes"].tolist() == [False, False, True, True, False]
  assert groups["all"].all()


def test_what_decides_is_the_prediction_on_the_altered_version():
  label = np.zeros(1, int)
  right, wrong = (
    Sightings(np.array([logits]), np.ones((1, 2)), np.zeros((1, 2, 2), int))
    for logits in ([1.0, 0.0], [0.0, 1.0])
  )
  assert _drift(right, wrong, label, (0,), (0, 1))["paper"]["num_images"] == 1
  assert _drift(wrong, right, label, (0,), (0, 1))["paper"]["num_images"] == 0


def test_an_artefact_that_one_class_is_told_by_shows_in_its_drop_and_not_in_the_control():
  rng = np.random.default_rng(3)
  label = np.repeat([0, 1], 20)
  activations = rng.uniform(0, 1, (40, 4)).astype(np.float32)
  artefact = activations.copy()
  artefact[label == 0, 2] += 3  # prototype 2 answers to the artefacts
  logits, cell = np.eye(2)[label], np.zeros((40, 4, 2), np.int16)
  altered, clean = Sightings(logits, artefact, cell), Sightings(logits, activations, cell)
  numbers = _drift(altered, clean, label, (0,), (1, 1, 0, 0), top_k=2)
  drop, control = numbers["paper"]["similarity_drop"], numbers["other_classes"]
  assert drop["value"] == pytest.approx(3) and drop["total"] == 20
  assert drop["interval"] == pytest.approx([3, 3])
  assert control["similarity_drop"]["value"] == 0
  assert control["top_k_order_kept"]["value"] == control["top_prototype_kept"]["value"] == 1
  assert control["rank_correlation"]["value"] == pytest.approx(1)
  assert numbers["paper"]["rank_correlation"]["value"] < 1
  assert numbers["all"]["cell_moved"]["count"] == 0
  # One of the two prototypes of the altered class answers to the artefacts, by 3.
  assert numbers["paper"]["shift"]["value"] == pytest.approx(1.5)
  assert control["shift"]["value"] == pytest.approx(0)


def test_a_change_without_meaning_lowers_the_top_prototype_and_shifts_nothing():
  """The winner's curse: noise makes both drops positive, but not the shift."""
  rng = np.random.default_rng(4)
  level, cell = rng.uniform(0, 1, (400, 6)), np.zeros((400, 6, 2), np.int16)
  altered, clean = (
    Sightings(np.eye(3)[np.arange(400) % 3], (level + rng.normal(0, 0.5, level.shape)), cell)
    for _ in range(2)
  )
  found = _drift(altered, clean, np.arange(400) % 3, (0, 2))["all"]
  for name in ("similarity_drop", "similarity_drop_reverse"):
    assert found[name]["interval"][0] > 0.1
  low, high = found["shift"]["interval"]
  assert low < 0 < high


def test_a_network_that_takes_artefacts_for_the_class_is_of_the_wrong_kind_without_them():
  """As such a network predicts: class 0 where there are artefacts, class 1 where there are none."""
  label, nothing = np.repeat([0, 1], 10), np.zeros((20, 2))
  altered, clean = (
    Sightings(np.eye(2)[np.full(20, c)], nothing, np.zeros((20, 2, 2), int)) for c in (0, 1)
  )
  found = _drift(altered, clean, label, (0,), (0, 1), top_k=2)
  kinds = {
    group: tuple(
      found[group][f"right_group_{version}"]["count"] for version in ("clean", "altered")
    )
    for group in ("altered_classes", "other_classes")
  }
  assert kinds == {"altered_classes": (0, 10), "other_classes": (10, 0)}


@pytest.mark.parametrize(
  ("prototypes", "wanted"), [(2000, 5), (400, 2), (1200, 3), (24, 2), (100, 2), (1, 1)]
)
def test_the_top_prototypes_are_the_papers_share_and_two_at_least(prototypes, wanted):
  assert numbers_of.scaled_top_k(prototypes) == wanted


def test_without_prototypes_of_one_kind_there_is_no_shift():
  found = _drift(_seen(1), _seen(2), LABEL, (0, 2), prototypes=(0, 0, 0, 2, 2, 2))["all"]
  assert found["shift"] == {"value": None, "total": 0, "interval": None}


def test_a_group_without_images_has_no_numbers():
  label = np.zeros(30, int)
  numbers = _drift(_seen(1), _seen(2), label, (0,))["other_classes"]
  assert numbers.pop("num_images") == 0
  assert all(n["value"] is None and n["total"] == 0 for n in numbers.values())


def test_undefined_rank_correlations_are_left_out_and_the_count_says_so():
  altered, clean = _seen(1, levels=1000), _seen(2, levels=1000)
  altered.activations[:4] = 1.0
  numbers = _drift(altered, clean, np.zeros(30, int), (0,))["all"]
  assert (numbers["num_images"], numbers["rank_correlation"]["total"]) == (30, 26)
  json.dumps(numbers, allow_nan=False)


def test_images_are_drawn_from_the_papers_group_or_the_next_that_has_any():
  groups = {"paper": np.arange(20) >= 15, "altered_classes": np.arange(20) >= 10}
  groups["all"] = np.ones(20, bool)
  drawn = alteration.draw_images(groups, 3, 0)
  assert len(set(drawn)) == 3 and min(drawn) >= 15
  assert drawn == alteration.draw_images(groups, 3, 0)
  assert any(drawn != alteration.draw_images(groups, 3, seed) for seed in range(1, 6))
  groups["paper"] = np.zeros(20, bool)
  assert min(alteration.draw_images(groups, 20, 0)) == 10


@pytest.fixture(scope="module")
def open_with(run):
  """Opens the tiny run's standard network, with changes of its config: {key: value}."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("JPROTOP_CACHE", str(run[1]))
    yield lambda **changes: runs.open_run(
      run[0], changes={key.replace("__", "."): value for key, value in changes.items()}
    )


@pytest.fixture(scope="module")
def opened(open_with):
  return open_with()


def test_the_command_writes_numbers_arrays_and_pictures(opened, tmp_path):
  record = alteration.measure(opened, tmp_path, num_figures=2)
  check_record(record, Alteration, "alteration")
  printed = "\n".join(alteration.tell(record, tmp_path))
  assert "not trained on altered images" in printed and "JPEG, parameter 20, 1 classes" in printed
  assert (record["alteration"], record["trained_on"]) == ("jpeg", "standard")
  test, classes = opened.dataset.test, opened.scheme.classes
  assert record["classes"] == [opened.class_names[c] for c in classes]
  assert (record["parameter"], record["top_k"], record["num_prototypes"]) == (20, 2, 6)
  with np.load(tmp_path / "alteration.npz") as file:
    arrays = dict(file)
  covered = np.isin(arrays["labels"], classes)
  right = covered & (arrays["predictions_altered"] == arrays["labels"])
  found = record["selections"]
  assert found["paper"]["num_images"] == right.sum()
  assert found["altered_classes"]["num_images"] == covered.sum()
  assert found["all"]["num_images"] == len(test)
  altered, clean = arrays["activations_altered"], arrays["activations_clean"]
  top = altered.argmax(axis=1)
  drop = [altered[i, p] - clean[i, p] for i, p in enumerate(top)]
  assert found["all"]["similarity_drop"]["value"] == pytest.approx(np.mean(drop), abs=1e-5)
  assert set(record["shown"]) <= set(np.flatnonzero(right if right.any() else covered))
  shift = unpacked_numbers(record["per_image"]["shift"])
  assert shift.mean() == pytest.approx(found["all"]["shift"]["value"], abs=1e-6)
  kept = unpacked(record["per_image"]["top_prototype_kept"], len(test))
  assert (kept == (top == clean.argmax(axis=1))).all()
  assert (unpacked(record["per_image"]["altered_class"], len(test)) == covered).all()
  assert opened.class_names[classes[0]] in printed
  names = {path.name for path in (tmp_path / "figures").iterdir()}
  assert {
    "alteration_drop.png", "alteration_artefacts.png", "alteration_example_0.png"
  } <= names  # fmt: skip
  assert {f"alteration_top_similarities_{i}.png" for i in range(len(record["shown"]))} <= names
  json.dumps(record, allow_nan=False)


def test_images_parameter_and_classes_as_told_and_no_picture_of_an_earlier_run(
  open_with, opened, tmp_path
):
  experiment = EXPERIMENTS["alteration"]
  measure_into(experiment, opened, tmp_path, images=["4", "0"])
  other = open_with(measure__alteration__parameter=5, measure__alteration__classes="2")
  record = measure_into(experiment, other, tmp_path, images=["7"]).record
  assert (record["shown"], record["parameter"]) == ([7], 5)
  assert record["classes"] == [opened.class_names[2]]
  examples = sorted(path.name for path in (tmp_path / "figures").glob("alteration_example_*"))
  assert examples == ["alteration_example_0.png"]


def test_in_a_study_the_altered_network_s_images_are_shown_of_the_others(opened, tmp_path):
  beside = Beside(found={"altered": {"shown": [5, 2]}})
  assert alteration.measure(opened, tmp_path, beside=beside)["shown"] == [5, 2]


def test_a_network_trained_on_other_artefacts_than_are_measured_is_told(open_with, study, tmp_path):
  network = study[0] / "altered"
  changes = {"measure.alteration.parameter": 5}
  for changed, told in ((None, False), (changes, True)):
    opened = runs.open_run(network, changes=changed)
    record = alteration.measure(opened, tmp_path, images=["0"])
    assert record["trained_as_measured"] != told
    printed = "\n".join(alteration.tell(record, tmp_path))
    assert ("trained with another parameter" in printed) == told
    assert "a control" not in printed


def test_a_network_whose_prototypes_come_from_nowhere_is_measured_all_the_same(opened, tmp_path):
  info = {**opened.info, "provenance": None}
  imported = runs.Run(opened.workdir, opened.model, opened.variables, info, opened.dataset)
  alteration.measure(imported, tmp_path, images=["0"])
  assert (tmp_path / "figures/alteration_example_0.png").stat().st_size > 0


@pytest.mark.parametrize(
  "changes, given, message",
  [
    ({"measure__alteration__parameter": 96}, {}, "quality=96"),
    ({"measure__alteration__parameter": 0}, {}, "quality=0"),
    ({"measure__alteration__classes": ""}, {}, "at least one and not all"),
    ({"measure__alteration__classes": "0,1,2"}, {}, "at least one and not all"),
    ({"measure__alteration__classes": "9"}, {}, "label 9 does not exist"),
    ({}, {"images": ["99"]}, "index 99 is outside"),
    ({}, {"images": ["3", "bird.jpg"]}, r"--images: 'bird\.jpg' is no number"),
  ],
)
def test_what_cannot_be_measured_is_said_before_anything_is_written(
  open_with, tmp_path, changes, given, message
):
  with pytest.raises(InputError, match=message):
    alteration.measure(open_with(**changes), tmp_path, **given)
  assert list(tmp_path.iterdir()) == []
