"""The reference's way, which the benchmark compares with, does what it says."""

import multiprocessing

import numpy as np
from commands import command

from jprotop.benchmark.reference import Reference, apart


def timed_forward(cache, *arguments):
  """What the benchmark's table says of a forward pass: our time, the reference's, their ratio."""
  given = ("--num_classes=3", "--batch_size=2", "--stages=forward", "--repeats=1")
  done = command("benchmark", *given, *arguments, cache=cache)
  assert done.returncode == 0, done.stderr[-2000:]
  (row,) = [line for line in done.stdout.splitlines() if line.startswith("| forward")]
  _, _, ours, _, theirs, ratio, *_ = [cell.strip() for cell in row.strip("|").split("|")]
  return ours, theirs, ratio


def test_every_stage_runs():
  reference = Reference("resnet18", 2, 2, batch_size=4, repeats=1)
  before = reference.network.prototype_vectors.detach().clone()
  found = [reference.forward(), reference.attack(1), reference.push(np.array([0, 1, 0, 1]))]
  assert (reference.network.prototype_vectors == before).all()
  found.append(reference.joint_step())
  assert (reference.network.prototype_vectors != before).any()
  assert all(value > 0 for value in found)


def test_the_benchmark_compares_with_it(tmp_path):
  ours, theirs, ratio = timed_forward(tmp_path)
  assert abs(float(ours) / float(theirs) - float(ratio)) < 0.02 * float(ratio) + 0.01


def test_a_network_without_a_twin_is_timed_alone(tmp_path):
  ours, theirs, ratio = timed_forward(tmp_path, "--backbone=resnet_small")
  assert float(ours) > 0 and not theirs and not ratio


def test_every_stage_of_efficientnet_lite_runs():
  """Its twin is a package, whose layers have other names and a padding of their own."""
  reference = Reference("efficientnet_lite0", 2, 2, batch_size=2, repeats=1)
  found = [reference.forward(), reference.attack(1), reference.joint_step()]
  assert all(value > 0 for value in found)


def test_the_process_of_the_twin_measures_and_ends():
  before = set(multiprocessing.active_children())
  with apart("resnet18", 2, 2, 2, 1) as reference:
    assert reference.seconds("forward") > 0
    assert len(set(multiprocessing.active_children()) - before) == 1
  assert set(multiprocessing.active_children()) == before
