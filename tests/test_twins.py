"""The positive control: classes whose twins nothing but artefacts tells apart."""

import types

import numpy as np
import pytest

from jprotop.cli import reproduce
from jprotop.data import twins as data
from jprotop.data.alterations import scheme_of
from jprotop.data.dataset import load_dataset
from jprotop.errors import InputError
from jprotop.experiments import twins
from jprotop.experiments.pages import all_claims
from jprotop.report import twin_charts
from jprotop.runs import config as base
from jprotop.runs.config_checks import check_config
from jprotop.runs.config_keys import apply_changes
from jprotop.runs.records import check_record

TOY = {"num_classes": 2, "images_per_class": 5, "size": 32, "seed": 0}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
  """Two species of five images, as they are and as twins."""
  fields = {"image_size": 8, "cache": tmp_path_factory.mktemp("cache"), "toy": TOY}
  return [
    load_dataset("toybirds", validation_share=0.34, twins=twins, **fields)
    for twins in (False, True)
  ]


def test_each_image_belongs_to_one_twin_of_its_class(datasets):
  plain, halved = datasets
  assert halved.class_names == data.twin_names(plain.class_names) and len(halved.class_names) == 4
  species = {
    image: label
    for split in (plain.train, plain.validation, plain.test)
    for image, label in zip(split.image_id, split.label)
  }
  seen = []
  for split in (halved.train, halved.validation, halved.test):
    assert [species[image] for image in split.image_id] == list(data.pair_of(split.label))
    seen += split.image_id
  assert sorted(seen) == sorted(species), "each image is in one split alone, and so in one twin"
  in_training = np.concatenate([halved.train.label, halved.validation.label])
  assert np.bincount(in_training).tolist() == np.bincount(halved.test.label).tolist() == [3, 2] * 2
  assert halved.identity != plain.identity
  np.testing.assert_array_equal(halved.test.pixels, plain.test.pixels)


def test_twins_are_drawn_from_the_seed_and_for_each_split_anew():
  label = np.repeat(np.arange(3), 20)
  drawn = [data.twin_labels(label, seed=s, split=n) for s, n in ((0, 0), (0, 0), (1, 0), (0, 1))]
  np.testing.assert_array_equal(drawn[0], drawn[1])
  assert (drawn[0] != drawn[2]).any() and (drawn[0] != drawn[3]).any()
  assert label.max() == 2, "what was given stays as it was"


def test_by_default_the_second_twins_are_altered():
  settings = {"name": "jpeg", "parameter": 20, "classes": "default", "seed": 0}
  assert scheme_of(settings, "paper", 6, twins=True).classes == (1, 3, 5)
  config = base.get_config().to_dict()
  changes = {"train.data.twins": True, "train.alteration.classes": "half"}
  with pytest.raises(InputError, match=r"alteration.classes='half', but train.data.twins=True"):
    check_config(apply_changes(config, changes))


def record(clean, altered, label):
  found = twins.numbers(label, {"clean": clean, "altered": altered})
  whole = {"alteration": "jpeg", "parameter": 20.0, "trained_on": "altered", **found}
  check_record(whole, twins.Twins, "twins")
  return whole


def test_the_shares_are_those_of_a_count_image_by_image():
  rng = np.random.default_rng(0)
  label, clean, altered = rng.integers(0, 6, (3, 60))
  found = record(clean, altered, label)
  for side, parity in (("altered_twins", 1), ("clean_twins", 0)):
    for name, predicted in (("clean", clean), ("altered", altered)):
      mine = [(y, p) for y, p in zip(label, predicted) if y % 2 == parity]
      in_pair = [(y, p) for y, p in mine if y // 2 == p // 2]
      sight = found[side][name]
      assert (sight["right_pair"]["count"], sight["right_pair"]["total"]) == (
        len(in_pair), len(mine),
      )  # fmt: skip
      right = sum(y == p for y, p in in_pair)
      assert sight["right_twin"]["count"] == right
      assert sight["other_twin"]["count"] == len(in_pair) - right
  moved = np.mean(altered % 2) - np.mean(clean % 2)
  assert found["goes_with_artefacts"]["value"] == pytest.approx(moved)


def verdicts(altered, standard):
  results = {"twins": {"altered": altered, "standard": standard}}
  return [claim["verdict"] for claim in all_claims(results)]


def test_full_use_of_artefacts_is_found_and_none_is_not():
  label = np.repeat(np.arange(6), 20)
  pair = 2 * (label // 2)
  full = record(pair, pair + 1, label)  # Clean images go to first twins, altered ones to second.
  assert full["altered_twins"]["clean"]["other_twin"]["value"] == 1
  assert full["goes_with_artefacts"]["value"] == 1
  guess = pair + np.tile([0, 1], 60)
  none = record(guess, guess, label)
  assert none["altered_twins"]["clean"]["other_twin"]["value"] == 0.5
  assert verdicts(full, none) == ["holds"] * 3
  assert verdicts(none, none) == ["reversed", "undecided", "holds"]
  assert verdicts(full, full)[2] == "reversed"
  told = "\n".join(twins.tell(full, "out"))
  assert "in the right twin 0.0% (0/60" in told


def test_the_chart_has_a_bar_for_each_kind_and_version():
  label = np.repeat(np.arange(4), 10)
  figure = twin_charts.predictions(record(label, label, label))
  (axes,) = figure.axes
  assert len(axes.get_yticks()) == 4
  assert {text.get_text() for text in axes.texts} == {"20"}


def test_classes_that_are_no_twins_are_refused(tmp_path):
  config = base.get_config().to_dict()
  scheme = types.SimpleNamespace(of_every_class=lambda: None)
  run = types.SimpleNamespace(
    config=config, workdir="RUN", scheme=scheme, dataset=types.SimpleNamespace(test=None)
  )
  with pytest.raises(InputError, match=r"RUN: a run of twins needs .* --config=twins, or"):
    twins.measure(run, tmp_path)
  assert "twins" not in {stage.name for stage in reproduce.chosen_stages(config, [])}
  with pytest.raises(InputError, match="--only=twins needs classes that are twins"):
    reproduce.chosen_stages(config, ["twins"])
  config["train"]["data"]["twins"] = True
  chosen = reproduce.chosen_stages(config, ["twins"])
  assert [stage.network for stage in chosen] == ["standard", "altered"]
