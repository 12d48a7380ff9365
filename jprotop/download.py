"""Downloading a file once: resumed where it broke off, and in place only when its hash is right."""

import contextlib
import dataclasses
import functools
import hashlib
import http.client
import io
import logging
import os
import pathlib
import time
import urllib.request
from collections.abc import Generator
from urllib.error import HTTPError, URLError

from tqdm import tqdm

from jprotop.errors import InputError
from jprotop.files import one_at_a_time, writing

_log = logging.getLogger("jprotop")

# Seconds without an answer after which a connection counts as broken.
TIMEOUT = 30
# Seconds before each further try.
PAUSES = (1, 4, 15)
_BLOCK = 1 << 16


@dataclasses.dataclass(frozen=True)
class Hash:
  """What a file's hash must be.

  Attributes:
    algorithm: "md5", "sha256" or another of hashlib's.
    digits: the hexadecimal digest in lower case, or the beginning of it that is known.
  """

  algorithm: str
  digits: str

  def of(self, file: io.BufferedIOBase) -> str:
    """The whole digest of an open file."""
    file.seek(0)
    new = functools.partial(hashlib.new, self.algorithm, usedforsecurity=False)
    return hashlib.file_digest(file, new).hexdigest()

  def fits(self, path: pathlib.Path) -> bool:
    """Whether there is such a file."""
    if not path.is_file():
      return False
    with open(path, "rb") as file:
      return self.of(file).startswith(self.digits)


class _NetworkError(Exception):
  """Holds an error of the connection, which must not be taken for one of the disk."""


def fetch(url: str, target: pathlib.Path, *, check: Hash, remedy: str) -> pathlib.Path:
  """Downloads `url` to `target`, unless a file with the right hash is there.

  What has come is in .NAME.partial beside the target until all is there: a download that broke off,
  or whose program was killed, goes on from there. A program waits for another with the same target.

  Args:
    remedy: what to do where there is no network; it ends the message of an error.

  Returns:
    `target`.

  Raises:
    InputError: the server cannot be reached, refuses, or breaks off again and again; the file has
      another hash; the disk is full, or the place cannot be written.
  """
  target = pathlib.Path(target)
  with writing(target):
    if check.fits(target):
      return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(target), _partial(target) as partial:
      if check.fits(target):  # Another program was faster.
        partial.truncate(0)
        return target
      if target.exists():
        _log.warning("%s is damaged, or another file; it is downloaded anew", target)
      _complete(url, partial, target.name, check, remedy)
      os.replace(partial.name, target)
  return target


@contextlib.contextmanager
def _partial(target: pathlib.Path) -> Generator[io.BufferedRandom]:
  """The file of what has come so far, open for appending; removed if it stays empty."""
  path = target.with_name(f".{target.name}.partial")
  with open(path, "a+b") as file:
    try:
      yield file
    finally:
      if not os.fstat(file.fileno()).st_size:
        path.unlink(missing_ok=True)


def _complete(url: str, partial: io.BufferedRandom, name: str, check: Hash, remedy: str) -> None:
  """Downloads what the partial file lacks; its hash is right at the end."""
  resumed = _receive_all(url, partial, name, remedy)
  found = check.of(partial)
  if resumed and not found.startswith(check.digits):
    _log.warning("what an earlier download of %s left does not fit; starting over", name)
    partial.truncate(0)
    _receive_all(url, partial, name, remedy)
    found = check.of(partial)
  if not found.startswith(check.digits):
    partial.truncate(0)
    rest = "..." if len(found) > len(check.digits) else ""
    raise InputError(
      f"{url} has {check.algorithm.upper()} {found}, not {check.digits}{rest}: the server, or "
      f"something on the way, gave another file; try again later; {remedy}"
    )


def _receive_all(url: str, partial: io.BufferedRandom, name: str, remedy: str) -> bool:
  """Connects again where a connection breaks; whether the last one went on from earlier bytes."""
  attempt = 0
  while True:
    try:
      return _receive(url, partial, name)
    except _NetworkError as holder:
      error = holder.args[0]
      reason = error.reason if type(error) is URLError else error
      if attempt == len(PAUSES) or not _may_pass(error, reached=attempt > 0):
        size = partial.seek(0, os.SEEK_END)
        kept = f"the same command goes on from the {size:,} bytes that have come; " if size else ""
        raise InputError(f"cannot download {url}: {reason}; {kept}{remedy}") from error
      _log.warning("downloading %s: %s; trying again in %d s", name, reason, PAUSES[attempt])
      time.sleep(PAUSES[attempt])
      attempt += 1


def _receive(url: str, partial: io.BufferedRandom, name: str) -> bool:
  """Appends what the file lacks, over one connection; whether bytes from before were kept."""
  kept = partial.seek(0, os.SEEK_END)
  response = _open(url, kept)
  if response is None:
    return True
  with response:
    if kept and response.status != http.client.PARTIAL_CONTENT:  # All of it, not what was asked.
      kept = 0
      partial.truncate(0)
    promised = response.headers.get("Content-Length")
    total = None if promised is None else kept + int(promised)
    look = {"unit": "B", "unit_scale": True, "desc": f"downloading {name}", "dynamic_ncols": True}
    with tqdm(total=total, initial=kept, **look) as bar:
      while block := _read(response):
        partial.write(block)
        bar.update(len(block))
    size = partial.seek(0, os.SEEK_END)
    if total is not None and size < total:
      raise _NetworkError(ConnectionError(f"the connection ended at byte {size:,} of {total:,}"))
  return kept > 0


def _open(url: str, kept: int) -> http.client.HTTPResponse | None:
  """The answer to a request for all from byte `kept` on; None: the server's file ends there.

  (Or it ends before: which of both it is, the hash will tell.)
  """
  # Some servers refuse urllib's own name.
  headers = {"User-Agent": "jprotop"} | ({"Range": f"bytes={kept}-"} if kept else {})
  try:
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
  except HTTPError as error:
    error.close()
    if kept and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
      return None
    raise _NetworkError(error) from error
  except (OSError, http.client.HTTPException) as error:
    raise _NetworkError(error) from error


def _read(response: http.client.HTTPResponse) -> bytes:
  try:
    return response.read(_BLOCK)
  except (OSError, http.client.HTTPException) as error:
    raise _NetworkError(error) from error


def _may_pass(error: Exception, *, reached: bool) -> bool:
  """Whether another try may end better; `reached`: whether an earlier one came further."""
  if isinstance(error, HTTPError):
    return error.code >= 500 or error.code in (408, 429)  # Too slow, too many requests.
  if isinstance(error, URLError) and not isinstance(
    error.reason, (TimeoutError, ConnectionResetError)
  ):
    return reached  # No such host, nobody listens: a machine without a network is told at once.
  return True
