"""jprotop: does this really look like that? Prototype networks in JAX, trained and put to the test.

```python
model, variables, info = jprotop.load("runs/demo/standard")
out = model.apply(variables, images)  # images float32 [N, S, S, 3] in [0, 1]
```
"""

from typing import Any

from jprotop.errors import InputError

__all__ = ["InputError", "load", "load_extensions"]


def load(workdir: str) -> tuple[Any, dict, dict]:
  """The network of a run, as trained so far.

  Returns:
    The ProtoPNet module; its variables, a tree of arrays; and info: `config`, `class_names`,
    `position`, `finished`, and `provenance` (None before the push), whose fields are int arrays
    image [P], cell [P, 2], box [P, 4] (y0, y1, x0, x1) and float sq_dist [P].

  Raises:
    InputError: no run, no checkpoint yet, or one that does not fit the run's config.
  """
  from jprotop.runs import run as runs  # Not at import: it brings JAX.

  return runs.load(workdir)


def load_extensions(*paths: str) -> None:
  """Runs files of Python that register what jprotop lacks; see docs/extending.md.

  Raises:
    InputError: a file does not exist or does not run; the message has the line.
  """
  from jprotop.runs import config_files

  config_files.load_extensions(paths)
