"""`make test-latest` takes the newest Python that works, and says so where there is none."""

import os
import pathlib
import subprocess

SCRIPT = pathlib.Path(__file__).parent / "latest.sh"
CHOSEN = 7


def run(path):
  env = {"PATH": str(path)}
  return subprocess.run(["/bin/bash", SCRIPT], env=env, capture_output=True, text=True, timeout=60)


def make_python(folder, name, *, works=True, status=1):
  """A Python that can import, if it works, and leaves with a status when it is to do more."""
  program = folder / name
  program.write_text(f'#!/bin/bash\n[ "$1" = -c ] && exit {int(not works)}\nexit {status}\n')
  os.chmod(program, 0o755)


def test_without_a_python_it_is_skipped_and_said(tmp_path):
  make_python(tmp_path, "python3.10")
  done = run(tmp_path)
  assert (done.returncode, done.stdout.split(":")[0]) == (0, "skipped"), done.stderr


def test_the_newest_that_works_is_taken(tmp_path):
  make_python(tmp_path, "python3.11")
  make_python(tmp_path, "python3.12", status=CHOSEN)
  make_python(tmp_path, "python3.14", works=False)
  make_python(tmp_path, "python3.9")
  assert run(tmp_path).returncode == CHOSEN
