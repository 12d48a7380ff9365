"""Results do not depend on how many devices there are, nor on how many processes share them."""

import os
import socket
import subprocess
import sys

import devices_program as program
import jax
import numpy as np
import pytest
from commands import ROOT
from conftest import drawn_variables
from tiny_network import TINY

from jprotop.prototypes import protopnet


def free_port():
  with socket.socket() as listener:
    listener.bind(("localhost", 0))
    return listener.getsockname()[1]


def begin(run, out, devices, *launch):
  flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
  return subprocess.Popen(
    [sys.executable, ROOT / "tests/devices_program.py", run, out, *map(str, launch)],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
  """What the program finds, by where it ran; all start from what two devices saved."""
  base = tmp_path_factory.mktemp("devices")
  run, address = base / "run", f"localhost:{free_port()}"
  variables = drawn_variables(protopnet.make_model(TINY, program.CLASSES), program.SIZE)
  program.start(run, variables)
  places = {f"{count} devices": (count,) for count in (1, 8)}
  places |= {f"process {i} of 2": (2, address, 2, i) for i in (0, 1)}
  begun = {name: begin(run, base / f"{name}.npz", *how) for name, how in places.items()}
  results = {"2 devices": program.measure(run)}
  for name, process in begun.items():
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    with np.load(base / f"{name}.npz") as file:
      results[name] = dict(file)
  return results


PLACES = ("1 devices", "8 devices", "process 0 of 2", "process 1 of 2")


@pytest.fixture(params=PLACES)
def both(found, request):
  """(what two devices find, what others do)."""
  return found["2 devices"], found[request.param]


def parts(results, name):
  return {key: value for key, value in results.items() if key.startswith(f"{name}/")}


def test_the_devices_are_those_asked_for(found):
  counts = [int(found[name]["devices"]) for name in ("2 devices", *PLACES)]
  assert counts == [2, 1, 8, 4, 4]  # Two of each process.


def test_a_training_step(both):
  two, other = both
  assert other["metrics/count"] == 13
  for name, value in parts(two, "metrics").items():
    np.testing.assert_allclose(other[name], value, rtol=1e-4, err_msg=name)
  for name, value in parts(two, "batch_stats").items():
    np.testing.assert_allclose(other[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
  rates = dict(program.joint_phase().learning_rate)
  for name, value in parts(two, "params").items():
    # A weight moves by about its rate in a step.
    rate = rates.get(name.split("/")[1], 0)
    np.testing.assert_allclose(other[name], value, rtol=0, atol=0.02 * rate, err_msg=name)


def test_an_evaluation(both):
  two, other = both
  np.testing.assert_allclose(other["logits"], two["logits"], rtol=1e-4, atol=1e-4)


def test_push(both):
  two, other = both
  for name in ("push/image", "push/cell", "push/box"):
    np.testing.assert_array_equal(other[name], two[name], err_msg=name)
  np.testing.assert_allclose(other["push/sq_dist"], two["push/sq_dist"], rtol=1e-4, atol=1e-6)


def test_an_attack(both):
  two, other = both
  assert np.abs(two["attacked"] - program.images()["image"]).max() > 0.01
  # Rounding may turn the sign of a gradient that is nearly 0.
  assert np.mean(np.abs(other["attacked"] - two["attacked"]) > 1e-6) < 1e-3
  activations = other["attacked_activations"], two["attacked_activations"]
  np.testing.assert_allclose(*activations, rtol=1e-3, atol=1e-3)


def test_processes_have_the_very_same(found):
  first, second = found["process 0 of 2"], found["process 1 of 2"]
  assert first.keys() == second.keys()
  jax.tree.map(np.testing.assert_array_equal, first, second)
