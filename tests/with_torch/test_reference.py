"""The reference's way, which the benchmark compares with, does what it says."""

import time

import numpy as np

from experiments.benchmark_torch import Reference


def seconds(function):
  start = time.perf_counter()
  function()
  return time.perf_counter() - start


def test_every_stage_runs():
  images = np.random.default_rng(0).random((4, 224, 224, 3), np.float32)
  labels = np.array([0, 1, 0, 1])
  reference = Reference("resnet18", 2, 2, images, labels, seconds)
  before = reference.network.prototype_vectors.detach().clone()
  found = [reference.forward(), reference.attack(1), reference.push(images, labels)]
  assert (reference.network.prototype_vectors == before).all()
  found.append(reference.joint_step())
  assert (reference.network.prototype_vectors != before).any()
  assert all(value > 0 for value in found)
