"""Arrays from .npy files that a user gives: read as data, and only where all of it is there."""

import pathlib
import zipfile

import numpy as np
from jaxtyping import Shaped

from jprotop.errors import InputError, excerpt
from jprotop.files import check_regular

# They are held in memory whole.
_MAX_BYTES = 8e9


def read_array(path: pathlib.Path) -> Shaped[np.ndarray, "..."]:
  """The array of a .npy file.

  Raises:
    InputError: it is none, is damaged, claims more than it holds, or is too large.
  """
  check_regular(path)
  if zipfile.is_zipfile(path):
    raise InputError(
      f"{path} is not a readable .npy file, but an .npz of several arrays; save one with numpy.save"
    )
  try:
    # Mapped first: what a header claims is then held against the size of the file.
    array = np.lib.format.open_memmap(path, mode="r")
  except Exception as error:  # NumPy raises half a dozen kinds for a damaged header.
    raise InputError(f"{path} is not a readable .npy file: {excerpt(error)}") from error
  if array.nbytes > _MAX_BYTES:
    raise InputError(
      f"{path} holds {array.nbytes / 1e9:.0f} GB, and all of it would be held in memory; give at "
      f"most {_MAX_BYTES / 1e9:.0f} GB at a time"
    )
  return np.array(array)
