"""Backbones become rows, seeds become means, and what does not belong together is refused."""

import statistics

import pytest
import study_results
from study_results import share, study

from jprotop.errors import InputError
from jprotop.evaluation import collect, paper_tables


def test_backbones_are_joined_in_the_papers_order():
  backbones = ["vgg19", "resnet_small", "resnet34", "resnet18"]
  found = collect.collect([(name, study(name)) for name in backbones])
  for table in ("table1", "table2", "table4"):
    names = [row["backbone"] for row in found[table]]
    assert names == ["ResNet-18", "ResNet-34", "VGG-19", "resnet_small"]
  assert [(row["backbone"], row["training"]) for row in found["table3"]][:3] == [
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
  # Two degrees of freedom: Student's t is 4.303 at 97.5%.
  half = 4.303 * statistics.stdev(values) / 3**0.5
  assert clean["interval"] == pytest.approx([clean["value"] - half, clean["value"] + half])
  assert row["published"] == 79.58
  assert [r["training"] for r in found["table3"]] == ["standard", "adversarial"]
  assert found["table3"][0]["success_rate_authors"]["std"] == 0


def test_a_mean_over_seeds_takes_those_that_have_the_number():
  assert collect.mean_over_seeds([None, {"value": None, "total": 0, "count": 0}]) is None
  alone = collect.mean_over_seeds([None, share(1, 2)])
  assert alone == {"value": 0.5, "std": None, "total": 1, "interval": None}
  # Shares stay within [0, 1].
  assert collect.mean_over_seeds([share(9, 10), share(10, 10)])["interval"][1] == 1


def test_more_seeds_give_a_narrower_interval():
  pair = [share(40, 100), share(60, 100)]
  intervals = [collect.mean_over_seeds(pair * n)["interval"] for n in (1, 2, 5, 6, 20)]
  widths = [high - low for low, high in intervals]
  assert widths == sorted(widths, reverse=True)


def changed(section, key, value, **options):
  results = study(**options)
  results["config"][section][key] = value
  return results


def protocol_authors():
  results = study("vgg19")
  results["config"]["protocol"] = results["protocol"] = "authors"
  return results


def other_identity():
  return {**study("vgg19"), "data": "other"}


@pytest.mark.parametrize(
  ("other", "words"),
  [
    (study(), "same study with the same seed, 0"),
    (changed("data", "dir", "/elsewhere"), "same study"),
    (study("vgg19", data="toybirds"), "data set: cub with 200 classes and toybirds"),
    (study("vgg19", classes=10), "cub with 200 classes and cub with 10 classes"),
    (other_identity(), "other classes, images or labels"),
    (protocol_authors(), "protocol: paper and authors"),
    (changed("attack", "eps", 4 / 255, backbone="vgg19"), "noise"),
    (changed("training", "batch_size", 40, seed=1), "training.batch_size is 80 and 40"),
    (changed("model", "prototype_depth", 64), "model.prototype_depth is 256 and 64"),
    ({"table1": []}, "holds no study"),
  ],
)
def test_what_does_not_belong_together_is_refused(other, words):
  with pytest.raises(InputError, match=words) as error:
    collect.collect([("runs/a", study()), ("runs/b", other)])
  assert "runs/b" in str(error.value)


def test_seeds_may_hold_out_other_images_compress_other_classes_and_lie_elsewhere():
  one, other = study(seed=0), study(seed=1)
  assert one["data"] != other["data"]
  assert one["config"]["data"]["dir"] != other["config"]["data"]["dir"]
  other["config"]["attack"]["batch_size"] = 99
  one["config"]["jpeg"], other["config"]["jpeg"] = ({"quality": 20, "seed": n} for n in (0, 1))
  assert len(collect.collect([("a", one), ("b", other)])["table1"]) == 1


def test_one_study_alone_and_none():
  results = study()
  found = collect.collect([("a", results)])
  assert {name: found[name] for name in found if name.startswith("table")} == (
    paper_tables.all_tables(results)
  )
  with pytest.raises(InputError, match="nothing to collect"):
    collect.collect([])


def test_a_broken_results_file_is_named():
  results = study()
  results["evaluate"]["jpeg"]["clean"]["value"] = 0.9
  with pytest.raises(InputError, match=r"runs/b: evaluate\.jpeg\.clean has value 0\.9"):
    collect.collect([("runs/a", study("vgg19")), ("runs/b", results)])
  results = study_results.study()
  del results["config"]["model"]["backbone"]
  with pytest.raises(InputError, match=r"config\.model\.backbone is missing"):
    collect.collect([("runs/a", results)])
