"""Commands of jprotop in processes of their own, and what their results are, bit for bit."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from commands import FAST_COMPILATION  # noqa: E402

# Of results.json and stages, what is not the same twice.
_TIMES = ("environment", "digests", "digest", "time", "seconds")


def start(
  *arguments: object, cache: pathlib.Path, log: pathlib.Path, before=None
) -> subprocess.Popen:
  """Begins `jprotop ARGUMENTS`; what it says goes to a file."""
  env = {**os.environ, "JPROTOP_CACHE": str(cache), "XLA_FLAGS": FAST_COMPILATION}
  env |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
  program = "from jprotop.cli.main import main; main()"
  log.parent.mkdir(parents=True, exist_ok=True)
  with open(log, "ab") as file:
    return subprocess.Popen(
      [sys.executable, "-c", program, *map(str, arguments)],
      cwd=ROOT,
      env=env,
      stdout=file,
      stderr=file,
      preexec_fn=before,
    )


def run(*arguments: object, cache: pathlib.Path, log: pathlib.Path, before=None) -> int:
  """The exit status of a command that ends by itself."""
  return start(*arguments, cache=cache, log=log, before=before).wait(timeout=1800)


def train(workdir: pathlib.Path) -> tuple[str, ...]:
  return ("train", "--config=tiny", f"--workdir={workdir}")


def reproduce(workdir: pathlib.Path) -> tuple[str, ...]:
  return ("reproduce", "--config=tiny", f"--workdir={workdir}")


def says_traceback(log: pathlib.Path) -> str:
  """The end of a traceback that a command printed; "" where it printed none."""
  text = log.read_text(errors="replace")
  return text[text.rindex("Traceback") :][:1500] if "Traceback" in text else ""


def facts_of(workdir: pathlib.Path) -> dict[str, str]:
  """A digest of everything that a run or a study leaves and that must be the same twice."""
  facts = {}
  for folder in sorted({path.parent for path in workdir.rglob("checkpoints")}):
    facts[f"{folder.relative_to(workdir)}/weights"] = _weights(folder)
  for path in sorted(workdir.rglob("*")):
    name = path.relative_to(workdir).as_posix()
    if path.name == "history.jsonl" or path.suffix in (".csv", ".tex", ".npz"):
      facts[name] = _digest(_arrays(path) if path.suffix == ".npz" else path.read_bytes())
    elif path.name == "results.json" or path.parent.name == "stages":
      facts[name] = _digest(json.dumps(_timeless(json.loads(path.read_text()))).encode())
  return facts


def differing(one: dict[str, str], other: dict[str, str]) -> list[str]:
  return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _weights(folder: pathlib.Path) -> str:
  import jax  # Only where results are compared: it takes a second.

  import jprotop

  _, variables, info = jprotop.load(str(folder))
  arrays = [array.tobytes() for array in jax.tree.leaves(jax.device_get(variables))]
  sources = info["provenance"].as_arrays() if info["provenance"] else {}
  where = {name: array.tobytes().hex() for name, array in sources.items()}
  rest = json.dumps([info["position"], info["finished"], info["class_names"], where])
  return _digest(b"".join([*arrays, rest.encode()]))


def _arrays(path: pathlib.Path) -> bytes:
  import numpy as np

  with np.load(path, allow_pickle=False) as file:
    return b"".join(name.encode() + file[name].tobytes() for name in sorted(file.files))


def _timeless(value):
  """JSON without what tells the time, and without this machine's paths."""
  if isinstance(value, dict):
    return {k: _timeless(v) for k, v in value.items() if k not in (*_TIMES, "data", "fingerprint")}
  return [_timeless(v) for v in value] if isinstance(value, list) else value


def _digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()[:16]
