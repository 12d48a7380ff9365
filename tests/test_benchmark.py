"""The benchmark on a tiny network, whose figures mean nothing: it runs, and says what it did."""

import json

import pytest
from commands import command


def test_stages_are_timed_and_written(tmp_path):
  given = ("--backbone=resnet_small", "--image_size=32", "--num_classes=3", "--batch_size=4")
  what = ("--stages=device_augment,forward,joint_step,push,last_layer", "--repeats=1")
  sizes = ("--push_images=50", "--profile", f"--out={tmp_path / 'speed'}")
  done = command("benchmark", *given, *what, *sizes, cache=tmp_path)
  assert done.returncode == 0, done.stderr[-2000:]
  found = json.loads((tmp_path / "speed.json").read_text())
  rows = {row["stage"]: row for row in found["rows"]}
  names = ["device augment", "forward", "joint step", "push", "last layer", "recipe"]
  assert list(rows) == names
  # Six passes over what lies below the prototypes (warm, and once for the last layer), six epochs.
  passes = [6 * rows[name]["ms"] for name in ("forward", "joint step")]
  assert rows["recipe"]["ms"] == pytest.approx(sum(passes), abs=0.1)
  assert all(row["ms"] > 0 for row in rows.values())
  # A busy machine's share of what it could do rounds to 0; the reference was measured at 224 px.
  assert 0 <= rows["forward"]["share"] < 10 and rows["forward"]["reference ms"] is None
  for operations in found["profiles"].values():
    assert abs(sum(row["share"] for row in operations) - 1) < 0.01
  assert "costs 24 forward passes a copy; the reference's way, 43." in found["measured"]
  text = (tmp_path / "speed.md").read_text()
  assert "| forward | image |" in text and "GFLOP/s" in text and text in done.stdout + "\n"


@pytest.mark.parametrize(
  ("flag", "message"),
  [
    ("--stages=forwards", "--stages=forwards is not known; take some of augment, device_augment"),
    ("--stages=", "--stages= is not known; take some of augment"),
    ("--batch_size=0", "--batch_size=0 must be a positive multiple of the"),
  ],
)
def test_flags_that_cannot_be_taken(flag, message, tmp_path):
  done = command("benchmark", flag, cache=tmp_path)
  assert done.returncode == 1
  assert message in done.stderr
