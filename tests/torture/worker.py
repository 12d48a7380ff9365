"""A process that tries cases, and may die of one: `python worker.py MODULE FOLDER`.

It says "ready", reads their numbers, a line each, and answers each with a line of JSON: [outcome,
note]. A module
of cases has prepare(folder), once a process, and case(number, folder).
"""

import importlib
import json
import os
import pathlib
import sys
import traceback

TESTS = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from commands import FAST_COMPILATION  # noqa: E402

os.environ |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": FAST_COMPILATION}

from jprotop.errors import InputError  # noqa: E402


def outcome_of(call, *arguments) -> tuple[str, str]:
  """What comes of a call that returns an (outcome, note) or None, or raises."""
  try:
    return call(*arguments) or ("fine", "")
  except InputError as error:
    message = str(error)
    if len(message) > 20_000 or not message.replace("\n", "").isprintable():
      return "traceback", f"a message of {len(message)} letters that cannot all be shown"
    return "told", message
  except Exception:
    return "traceback", "".join(traceback.format_exc(limit=-3))[-1500:]


def main() -> None:
  name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # What is printed on the way is no answer.
  cases = importlib.import_module(name)
  cases.prepare(folder)
  print("ready", file=answers, flush=True)
  for line in sys.stdin:
    print(json.dumps(outcome_of(cases.case, int(line), folder)), file=answers, flush=True)


if __name__ == "__main__":
  main()
