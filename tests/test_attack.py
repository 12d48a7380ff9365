"""How many images are attacked at once: as many as a device's memory holds."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from commands import ROOT
from conftest import drawn_variables
from tiny_network import TINY

from jprotop import parallel
from jprotop.attacks import perturb as attack
from jprotop.prototypes.protopnet import ProtoPNet, make_model

SIZE = 64


@pytest.fixture
def memory(monkeypatch):
  """A function that says how much memory a device has."""
  attack.rows_that_fit.cache_clear()
  yield lambda size: monkeypatch.setattr(parallel, "device_bytes", lambda: int(size))
  attack.rows_that_fit.cache_clear()


@pytest.fixture(scope="module")
def model():
  return make_model({**TINY, "backbone": "resnet_small"}, 3)


def rows(model, memory, size):
  memory(size)
  attack.rows_that_fit.cache_clear()
  return attack.rows_that_fit(model, SIZE)


def compiled_bytes(model, variables, count):
  """What XLA sets aside for one gradient of `count` images, as an attack takes it."""

  def gradient(images):
    return jax.grad(lambda x: model.apply(variables, x, method=ProtoPNet.latent).sum())(images)

  images = jnp.zeros((count, SIZE, SIZE, 3))
  return jax.jit(gradient).lower(images).compile().memory_analysis().temp_size_in_bytes


def test_more_memory_holds_more_images_up_to_what_is_faster(model, memory):
  mebibyte = 2**20
  found = [rows(model, memory, size * mebibyte) for size in (0.001, 2.5, 4, 10**5, 10**6)]
  assert found[0] == len(jax.devices())  # an attack of one image a device is always tried
  assert found == sorted(found) and len(set(found)) > 3
  assert found[-1] == found[-2]


def test_what_fits_needs_no_more_than_half_the_memory(model, memory):
  variables = drawn_variables(model, SIZE)
  device = 8 * 2**20
  fitting = rows(model, memory, device) // len(jax.devices())
  needed = compiled_bytes(model, variables, fitting)
  assert fitting >= 2 and device / 16 < needed <= device / 2


def test_this_machine_says_how_much_memory_it_has():
  assert parallel.device_bytes() > 2**28


def test_long_attacks_come_out_alike_on_one_device_and_on_all():
  """As commands compile and run them: XLA's threads must not run out of room for their tasks."""
  env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "PJRT_NPROC")}
  done = subprocess.run(
    [sys.executable, ROOT / "tests/long_attack_program.py"],
    env={**env, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  assert "images that differ: []" in done.stdout
