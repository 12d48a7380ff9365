"""Backbones become rows, seeds become means, and what does not belong together is refused."""

import statistics

import pytest
from study_results import share, study

from jprotop.errors import InputError
from jprotop.experiments import collect, over_seeds
from jprotop.report import paper_tables
from jprotop.runs.config_keys import apply_changes
from jprotop.runs.records import FORM


def test_backbones_are_joined_in_the_papers_order():
  backbones = ["vgg19", "resnet_small", "resnet34", "resnet18"]
  found = collect.collect([(name, study(name)) for name in backbones])
  for table in ("table1", "table2", "table4"):
    names = [row["backbone"] for row in found[table]]
    assert names == ["ResNet-18", "ResNet-34", "VGG-19", "resnet_small"]
  assert [(row["backbone"], row["network"]) for row in found["table3"]][:3] == [
    ("ResNet-18", "standard"),
    ("ResNet-18", "adversarial"),
    ("ResNet-34", "standard"),
  ]
  assert found["table1"][1] == paper_tables.all_tables(study("resnet34"))["table1"][0]
  assert [s["name"] for s in found["sources"]] == backbones


def test_seeds_become_a_mean_with_its_spread():
  gains = [0, 20, 7]
  found = collect.collect(
    [(f"run{seed}", study(seed=seed, more=more)) for seed, more in enumerate(gains)]
  )
  (row,) = found["table1"]
  values = [0.79 + more / 1000 for more in gains]
  clean = row["clean"]
  assert (clean["value"], clean["total"]) == (pytest.approx(statistics.fmean(values)), 3)
  assert clean["std"] == pytest.approx(statistics.stdev(values))
  # Two degrees of freedom: Student's t is 4.30265 at 97.5%.
  half = 4.30265 * statistics.stdev(values) / 3**0.5
  assert clean["interval"] == pytest.approx(
    [clean["value"] - half, clean["value"] + half], abs=1e-6
  )
  assert row["published"] == 79.58
  assert [r["network"] for r in found["table3"]] == ["standard", "adversarial"]
  assert found["table3"][0]["success_rate_authors"]["std"] == 0


def test_altered_classes_are_named_where_all_seeds_have_the_same():
  studies = [(f"seed{seed}", study(seed=seed)) for seed in (0, 1)]
  for (_, results), names in zip(studies, (["a", "b"], ["b", "c"])):
    results["accuracy"]["altered"]["test"]["classes"] = names
    results["accuracy"]["remedied"]["test"]["classes"] = ["a"]
  merged = collect.collect(studies)
  assert merged["table2"][0]["classes"] == "others in each study"
  assert merged["table4"][0]["classes"] == "a"


def test_a_mean_over_seeds_takes_those_that_have_the_number():
  assert over_seeds.mean_over([None, {"value": None, "total": 0, "count": 0}]) is None
  alone = over_seeds.mean_over([None, share(1, 2)])
  assert (alone["value"], alone["total"]) == (0.5, 1)
  assert alone["std"] is alone["interval"] is alone["method"] is None
  # Shares stay within [0, 1].
  assert over_seeds.mean_over([share(9, 10), share(10, 10)])["interval"][1] == 1


@pytest.mark.parametrize(("seeds", "point"), [(2, 12.7062), (11, 2.2281), (31, 2.0423)])
def test_the_interval_over_seeds_is_students_t(seeds, point):
  # Points of printed tables, with 1, 10 and 30 degrees of freedom.
  found = over_seeds.mean_over([share(500 + seed % 2, 1000) for seed in range(seeds)])
  half = (found["interval"][1] - found["interval"][0]) / 2
  assert half == pytest.approx(point * found["std"] / seeds**0.5, rel=1e-4)


def test_more_seeds_give_a_narrower_interval():
  pair = [share(40, 100), share(60, 100)]
  intervals = [over_seeds.mean_over(pair * n)["interval"] for n in (1, 2, 5, 6, 20)]
  widths = [high - low for low, high in intervals]
  assert widths == sorted(widths, reverse=True)


def changed(key, value, **options):
  results = study(**options)
  return {**results, "config": apply_changes(results["config"], {key: value})}


def other_identity():
  return {**study("vgg19"), "data": "other"}


@pytest.mark.parametrize(
  ("other", "words"),
  [
    (study(), "same study with the same seed, 0"),
    (changed("data.dir", "/elsewhere"), "same study"),
    (study("vgg19", data="toybirds"), "data set: cub with 200 classes and toybirds"),
    (study("vgg19", classes=10), "cub with 200 classes and cub with 10 classes"),
    (other_identity(), "other classes, images or labels"),
    (changed("train.protocol", "authors", backbone="vgg19"), "protocol: paper and authors"),
    (changed("measure.attack.eps", 4 / 255, backbone="vgg19"), "noise"),
    (changed("train.batch_size", 40, seed=1), "train.batch_size is 80 and 40"),
    (changed("train.model.prototype_depth", 64), "train.model.prototype_depth is 256 and 64"),
    ({"form": FORM, "table1": []}, "holds no study"),
  ],
)
def test_what_does_not_belong_together_is_refused(other, words):
  with pytest.raises(InputError, match=words) as error:
    collect.collect([("runs/a", study()), ("runs/b", other)])
  assert "runs/b" in str(error.value)


def test_seeds_may_hold_out_other_images_alter_other_classes_and_lie_elsewhere():
  one, other = study(seed=0), changed("compute.attack_batch_size", 99, seed=1)
  assert one["data"] != other["data"]
  a, b = one["config"], other["config"]
  assert a["data"]["dir"] != b["data"]["dir"]
  for part in ("train", "measure"):
    assert (a[part]["alteration"]["seed"], b[part]["alteration"]["seed"]) == (0, 1)
  assert len(collect.collect([("a", one), ("b", other)])["table1"]) == 1


def test_one_study_alone_and_none():
  results = study()
  found = collect.collect([("a", results)])
  names = (*(f"table{i}" for i in range(1, 5)), "targets")
  assert {name: found[name] for name in names} == (paper_tables.all_tables(results))
  with pytest.raises(InputError, match="nothing to collect"):
    collect.collect([])


def test_where_prototypes_went_is_averaged_over_seeds_from_head_to_stomach_first():
  found = collect.collect([("a", study(seed=0)), ("b", study(seed=1))])["targets"]
  assert [(row["sat_on"], row["target"]) for row in found] == [
    ("head", "stomach"), ("back", "stomach")
  ]  # fmt: skip
  assert found[0]["moved_to_target"]["total"] == 2
  assert found[0]["moved_to_target"]["value"] == pytest.approx(11 / 12)


def test_a_broken_results_file_is_named():
  results = study()
  results["accuracy"]["altered"]["test"]["clean"]["value"] = 0.9
  with pytest.raises(InputError, match=r"runs/b: accuracy\.altered\.test\.clean: value 0\.9"):
    collect.collect([("runs/a", study("vgg19")), ("runs/b", results)])
  results = study()
  del results["config"]["train"]["model"]["backbone"]
  with pytest.raises(InputError, match=r"runs/a: config\.train\.model: .*field `backbone`"):
    collect.collect([("runs/a", results)])
