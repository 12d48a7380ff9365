"""Files that a reader is to refuse: in every form, and what their error must be like."""

import tracemalloc

import numpy as np
import pytest
from torch_archives import row_file, tar_file, zip_file

from jprotop.errors import InputError
from jprotop.torch_io import torch_files

DATA = np.arange(4, dtype=np.float32).tobytes()
LARGE = 2**27  # bytes, which is 128 MB


def in_all_forms(content, data=DATA):
  """A pickle's bytes as files of every form."""
  return {
    "zip": zip_file(content, {"0": data}),
    "row": row_file(content, {"0": (len(data) // 4, data)}),
    "tar": tar_file(content),
  }


def read(folder, content):
  path = folder / "file.pth"
  path.write_bytes(content)
  return torch_files.read(path)


def error_of(folder, content):
  """The message of the error that a file is, for which little memory must be enough."""
  tracemalloc.start()
  try:
    with pytest.raises(InputError) as caught:
      read(folder, content)
    assert tracemalloc.get_traced_memory()[1] - 2 * len(content) < LARGE
  finally:
    tracemalloc.stop()
  message = str(caught.value)
  assert "was not read, and nothing of it was run: " in message
  assert message.isprintable() and len(message) < 1500
  return message
