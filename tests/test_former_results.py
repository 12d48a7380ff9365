"""A former study's numbers under their new names, and what is said where one of them changed."""

import json
import subprocess
import sys

import former_results
import pytest
from study_results import mean, share

NUMBERS = {"clean": share(9, 10), "robust": share(1, 10), "altered_minus_clean": mean(0.5)}
DRIFT = {"num_images": 4, "similarity_compressed": mean(4.0), "similarity_drop": mean(1.0)}
RATE = {"num_images": 5, "rate_at": {"1": share(2, 5)}, "seed": 0}
CLAIM = {"section": "App. E", "quantity": 0.25, "threshold": 0.0, "holds": True}

FORMER = {
  "config": {"variant": "standard"},
  "environment": {"python": "3.11"},
  "seed": 0,
  "protocol": "paper",
  "data": "abc",
  "evaluate": {
    "standard": {**NUMBERS, "compressed_classes": {"clean": share(4, 5)}},
    "jpeg": {**NUMBERS, "uncompressed_classes": {"clean": share(3, 5)}},
    "jpeg_augmented": NUMBERS,
  },
  "push": {"adversarial": {"num_prototypes": 6, "distinct": 5}},
  "success_rate": {"standard": {"paper": RATE, "ablation": [{"setting": "paper"}]}},
  "head_on_stomach": {
    "eps": 8 / 255,
    "protocol": "paper",
    "metrics": {"percentile_of_attacked": mean(0.5), "percentile_of_4": mean(0.9)},
  },
  "vanishing_head": {"num_images": 3, "metrics": {"drop": mean(2.0)}},
  "explain": {"num_images": 2},
  "jpeg_drift": {
    "jpeg": {"quality": 20, "shown": [1, 7], "selections": {"compressed_classes": DRIFT}}
  },
  "table1": [{"backbone": "resnet18", "clean": share(9, 10)}],
  "table2": [],
  "table3": [{"training": "standard", "robust": share(1, 10), "published_robust": 0.0}],
  "table4": [],
  "claims": [{**CLAIM, "claim": "Accuracy falls", "evidence": "in former words"}],
}

NEW_NUMBERS = {
  "clean": share(9, 10),
  "pgd_accuracy": share(1, 10),
  "altered_minus_clean": mean(0.5),
  "alteration": "jpeg",
  "finished_training": True,
}
NEW_DRIFT = {"num_images": 4, "similarity_altered": mean(4.0), "similarity_drop": mean(1.0)}
NEW = {
  "form": 2,
  "jprotop": "0.2.0",
  "config": {"train": {"network": "standard"}},
  "environment": {"reproduce": {"python": "3.12"}},
  "data": "abc",
  "accuracy": {
    "standard": {"test": {**NEW_NUMBERS, "altered_classes": {"clean": share(4, 5)}}},
    "altered": {"test": {**NEW_NUMBERS, "other_classes": {"clean": share(3, 5)}}},
    "remedied": {"test": NEW_NUMBERS},
  },
  "training": {"adversarial": {"push": {"num_prototypes": 6, "distinct": 5}}},
  "success_rate": {"standard": {"paper": RATE, "ablation": [{"setting": "paper"}]}},
  "head_on_stomach": {
    "standard": {
      "eps": 8 / 255,
      "random_start": True,
      "protocol": "paper",
      "metrics": {"share_below_attacked": mean(0.5), "share_below_4": mean(0.9)},
    }
  },
  "vanishing_head": {"standard": {"num_images": 3, "metrics": {"drop": mean(2.0)}}},
  "explain": {"standard": {"num_images": 2, "explained": [], "unreadable": []}},
  "alteration": {
    "altered": {
      "alteration": "jpeg",
      "parameter": 20.0,
      "trained_on": "altered",
      "shown": [1, 7],
      "selections": {"altered_classes": NEW_DRIFT},
    }
  },
  "table1": [{"backbone": "resnet18", "clean": share(9, 10)}],
  "table2": [],
  "table3": [{"network": "standard", "pgd_accuracy": share(1, 10), "published_pgd_accuracy": 0.0}],
  "table4": [],
  "claims": [{**CLAIM, "claim": "It falls", "evidence": "in new words"}],
}


def test_the_same_numbers_under_their_new_names_differ_in_nothing():
  assert former_results.differences(FORMER, NEW) == []


def test_every_number_is_compared():
  paths = dict(former_results.numbers_of(former_results.as_new(FORMER)))
  for path in (
    "/data",
    "/accuracy/altered/test/pgd_accuracy/value",
    "/accuracy/altered/test/other_classes/clean/interval/1",
    "/training/adversarial/push/distinct",
    "/success_rate/standard/paper/rate_at/1/count",
    "/head_on_stomach/standard/metrics/share_below_4/value",
    "/vanishing_head/standard/metrics/drop/total",
    "/explain/standard/num_images",
    "/alteration/altered/selections/altered_classes/similarity_altered/value",
    "/alteration/altered/shown/1",
    "/alteration/altered/parameter",
    "/table3/0/published_pgd_accuracy",
  ):
    assert path in paths


CHANGES = [
  ("accuracy.remedied.test.clean.count", 8),
  ("accuracy.altered.test.pgd_accuracy.interval.0", 0.25),
  ("training.adversarial.push.distinct", 6),
  ("success_rate.standard.paper.rate_at.1.value", 0.5),
  ("head_on_stomach.standard.metrics.share_below_attacked.value", 0.25),
  ("vanishing_head.standard.num_images", 2),
  ("alteration.altered.selections.altered_classes.similarity_drop.value", 1.5),
  ("alteration.altered.shown.0", 2),
  ("table3.0.published_pgd_accuracy", 1.0),
  ("data", "another"),
]


def changed(path, value=None):
  """NEW with another value at a path; without a value, the path is gone."""
  found = json.loads(json.dumps(NEW))  # No two places share their numbers there.
  *way, last = (int(name) if name == "0" else name for name in path.split("."))
  node = found
  for name in way:
    node = node[name]
  if value is None:
    del node[last]
  else:
    node[last] = value
  return found


@pytest.mark.parametrize(("path", "value"), CHANGES)
def test_a_changed_number_is_reported(path, value):
  (line,) = former_results.differences(FORMER, changed(path, value))
  assert line.startswith(f"/{path.replace('.', '/')}: ") and line.endswith(f"became {value!r}")


@pytest.mark.parametrize("path", ["accuracy.standard.test.clean.count", "explain.standard"])
def test_a_number_that_is_gone_is_reported(path):
  lines = former_results.differences(FORMER, changed(path))
  assert lines and all(line.endswith("became 'nothing'") for line in lines)


@pytest.mark.parametrize("change", [{"holds": False}, {"quantity": 0.5}, {"threshold": 0.5}])
def test_a_changed_verdict_is_reported(change):
  new = {**NEW, "claims": [{**NEW["claims"][0], **change}]}
  lines = former_results.differences(FORMER, new)
  assert len(lines) == 2 and all(line.startswith("claim: ") for line in lines)


@pytest.mark.parametrize(("value", "status"), [(9, 0), (8, 1)])
def test_as_a_program_it_prints_what_changed_and_fails_then(tmp_path, value, status):
  files = [tmp_path / "former.json", tmp_path / "new.json"]
  new = changed("accuracy.remedied.test.clean.count", value)
  for file, content in zip(files, (FORMER, new)):
    file.write_text(json.dumps(content))
  program = [sys.executable, former_results.__file__, *map(str, files)]
  done = subprocess.run(program, capture_output=True, text=True)
  assert done.returncode == status, done.stderr
  words = ["numbers are the same", "/accuracy/remedied/test/clean/count: 9 became 8"]
  assert [w in done.stdout for w in words] == [status == 0, status == 1]
