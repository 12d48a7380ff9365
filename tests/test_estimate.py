"""How long a study will take, before it starts and as its networks finish."""

import re
import shutil
import types

import pytest

from configs import tiny
from jprotop.cli import estimate
from jprotop.cli.reproduce import chosen_stages
from jprotop.cli.study import Study, stages
from jprotop.runs.config_checks import check_config


@pytest.fixture
def config():
  return check_config(tiny.get_config().to_dict())


@pytest.fixture
def cache(study, monkeypatch):
  """That of the study, whose images are prepared."""
  monkeypatch.setenv("JPROTOP_CACHE", str(study[1]))


def test_what_is_to_be_done_is_told_before_it_starts_and_again_after_each_training(study):
  lines = [line for line in study[2].stdout.splitlines() if line.startswith("Still to do")]
  first, *others = lines
  assert re.search(r"\(4 trainings [\d.]+ to [\d.]+ \w+, \d+ measurements .* went through", first)
  assert [int(re.search(r"(\d) training", line)[1]) for line in others[:-1]] == [3, 2, 1]
  assert "training" not in others[-1].split(";")[0]
  assert all("networks that this study has trained" in line for line in others)


def test_a_pretraining_that_networks_share_counts_once(config, cache, tmp_path):
  left = estimate.Estimate(Study(config, tmp_path, {}), chosen_stages(config, [])).trainings()
  assert left.keys() == {"standard", "altered", "remedied", "adversarial"}
  # 12 images of 2 copies; 3 classes of 4 training images: a pass of each, of which two with
  # gradients of the backbone, the push, and the activations.
  images = left["standard"] / (2 * (3 + 1 + 3 + 1) + 1)
  assert images == int(images)
  assert left["altered"] == left["standard"]
  assert left["remedied"] == images * (2 * (1 + 3 + 2) + 1)
  assert left["adversarial"] == images * (2 * (4 + 6 + 4) + 1)


def test_what_is_finished_is_not_counted(study, config, cache, tmp_path):
  paper = Study(config, study[0], {})
  assert estimate.Estimate(paper, chosen_stages(config, [])).tell() == ""
  shutil.copytree(study[0] / "standard", tmp_path / "standard")
  left = estimate.Estimate(Study(config, tmp_path, {}), chosen_stages(config, [])).trainings()
  assert left.keys() == {"altered", "remedied", "adversarial"}
  assert left["remedied"] < left["altered"]  # The standard network's pretraining is there.


def test_a_rate_is_taken_from_this_study_then_from_the_record_then_timed(
  config, tmp_path, monkeypatch
):
  config = {**config, "data": {**config["data"], "cache": str(tmp_path)}}
  paper = types.SimpleNamespace(config=config, trained=[])
  monkeypatch.setattr(estimate, "timed", lambda config: 7.0)
  guess = estimate.Estimate(paper, [])
  assert guess.rate() == (7.0, "timed")
  paper.trained = [(0.0, 0.0)]  # a network that was trained already
  assert guess.rate() == (7.0, "timed")
  paper.trained = [(100.0, 50.0), (300.0, 50.0)]
  assert guess.rate() == (0.25, "trained")
  other = types.SimpleNamespace(config=config, trained=[])
  assert estimate.Estimate(other, []).rate() == (0.25, "recorded")
  # One of another kind is no record of this one, and a damaged record none at all.
  train = {**config["train"], "data": {**config["train"]["data"], "image_size": 80}}
  larger = types.SimpleNamespace(config={**config, "train": train}, trained=[])
  assert estimate.Estimate(larger, []).rate() == (7.0, "timed")
  (tmp_path / "rates.json").write_text("{")
  assert estimate.Estimate(other, []).rate() == (7.0, "timed")


def test_a_range_is_wider_where_less_is_known(config, cache, monkeypatch, tmp_path):
  def width(source):
    guess = estimate.Estimate(Study(config, tmp_path, {}), chosen_stages(config, []))
    monkeypatch.setattr(guess, "rate", lambda: estimate.Rate(1.0, source))
    low, high = re.search(r"4 trainings ([\d.]+) to ([\d.]+)", guess.tell()).groups()
    return float(high) / float(low)

  assert width("trained") < width("recorded") < width("timed")


def test_a_few_images_are_timed_on_the_network_that_is_trained(config):
  assert 0 < estimate.timed(config) < 10


def test_more_steps_more_images_and_an_ablation_take_longer():
  def passes(name, **changes):
    config = tiny.get_config()
    config.update_from_flattened_dict({f"measure.{k}": v for k, v in changes.items()})
    (stage,) = [s for s in stages() if (s.name, s.network) == (name, "standard")]
    return stage.experiment.passes(config.to_dict()["measure"], "standard", 100)

  base = passes("success_rate", **{"success_rate.ablate": ""})
  assert passes("success_rate") > base > 0
  twice = {"success_rate.num_images": 8, "success_rate.ablate": ""}
  assert passes("success_rate", **twice) == 2 * base
  for name in ("head_on_stomach", "vanishing_head"):
    assert passes(name, **{"attack.num_steps": 6}) == 3 * passes(name)
  assert passes("accuracy", **{"class_pgd.num_steps": 0}) == 300


@pytest.mark.parametrize(
  ("low", "high", "text"),
  [
    (10, 100, "10 to 100 seconds"),
    (100, 600, "2 to 10 minutes"),
    (5000, 9000, "1.4 to 2.5 hours"),
  ],
)
def test_a_span_is_in_a_unit_that_fits(low, high, text):
  assert estimate._span(low, high) == text
