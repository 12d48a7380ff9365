"""What several processes of one program agree on: a run's folder is the first one's business alone.

It reads there and tells the others (`from_first`), and it writes (`kept_by_first`), so the others
need not see its disk. Who joins them with `jax.distributed.initialize` gives all the same program.
"""

import contextlib
import contextvars
import pathlib
import pickle
import tempfile
from collections.abc import Callable, Generator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jprotop.errors import InputError

# Inside `from_first` there is nobody to tell.
_speaking = contextvars.ContextVar("speaking", default=False)


def is_first() -> bool:
  """Whether this process is the one that writes; a program of one process is."""
  return not jax.distributed.is_initialized() or jax.process_index() == 0


def from_first(make: Callable[[], Any]) -> Any:
  """What `make()` returns in the first process, in every one: the others wait, and do not call it.

  For what must be the same everywhere but is read from a disk, drawn, or computed on one device.
  All processes call it in the same order. Where there are several, arrays come as host arrays.

  Raises:
    InputError: in every process, where `make` raises one.
  """
  if _speaking.get() or not jax.distributed.is_initialized():
    return make()
  spoken = np.frombuffer(_say(make) if is_first() else b"", np.uint8)
  # A power of two: each length compiles a program of its own. What follows a pickle is not read.
  length = np.uint32(1 << max(len(spoken) - 1, 1023).bit_length())
  length = int(multihost_utils.broadcast_one_to_all(length))
  heard = multihost_utils.broadcast_one_to_all(np.resize(spoken, length))
  value, error = pickle.loads(heard.tobytes())  # Made by this very program's first process.
  if error is not None:
    raise error
  return value


def _say(make: Callable[[], Any]) -> bytes:
  """A value, or the InputError that there is in its place, as bytes."""
  token = _speaking.set(True)
  try:
    return pickle.dumps((jax.device_get(make()), None))
  except InputError as error:
    return pickle.dumps((None, error))
  finally:
    _speaking.reset(token)


@contextlib.contextmanager
def kept_by_first(folder: pathlib.Path) -> Generator[pathlib.Path]:
  """The folder in the first process; in the others one for what is written there, and then lost."""
  if is_first():
    yield folder
    return
  with tempfile.TemporaryDirectory() as lost:
    yield pathlib.Path(lost)
