"""A machine with a single device, for comparison."""

import contextlib
import functools

import jax
import pytest

from jprotop import parallel
from jprotop.prototypes import push
from jprotop.training import steps


@contextlib.contextmanager
def one_device():
  """Inside, the library believes that this machine has a single device."""
  caches = (
    parallel._pixels_to_floats,
    parallel.per_example,
    push._search_step,
    steps.phase_step,
  )
  first = jax.devices()[:1]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, "pmap", functools.partial(jax.pmap, devices=first))
    patch.setattr(jax, "local_devices", lambda: first)
    patch.setattr(jax, "local_device_count", lambda: 1)
    for cached in caches:
      cached.cache_clear()
    yield
  for cached in caches:
    cached.cache_clear()
