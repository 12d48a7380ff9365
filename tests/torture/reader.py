"""A process that opens a run again and again, until its input ends: `python reader.py WORKDIR`.

Of each read it prints [outcome, note]. That there is no run, or no epoch yet, is as it should be,
and not told, until there was one.
"""

import json
import select
import sys
import time

from worker import outcome_of

import jprotop


def main() -> None:
  workdir, seen, before = sys.argv[1], False, -1

  def read() -> tuple[str, str]:
    nonlocal before
    epochs = jprotop.load(workdir)[2]["position"]["epochs_done"]
    if epochs < before:
      return "lost", f"epoch {epochs} after epoch {before}"
    before = epochs
    return "fine", ""

  ended = False
  while not ended:
    ended = bool(select.select([sys.stdin], [], [], 0)[0])
    outcome, note = outcome_of(read)
    if outcome == "told" and not seen and ("no finished epoch" in note or "holds no run" in note):
      time.sleep(0.02)
      continue
    seen = True
    print(json.dumps(["lost" if outcome == "told" else outcome, note]), flush=True)


if __name__ == "__main__":
  main()
