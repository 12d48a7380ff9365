"""What came of the cases of a campaign, and the table that says so."""

import collections
import dataclasses

# From harmless to worst: it went well; it was told in one message; a traceback, or a process that
# died or hung; something of a file was run; what was there is gone; other numbers without a word.
OUTCOMES = ("fine", "told", "traceback", "executed", "lost", "other")
BAD = OUTCOMES[2:]


@dataclasses.dataclass
class Tally:
  """The cases of one kind."""

  kind: str
  counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  notes: list[str] = dataclasses.field(default_factory=list)
  seconds: float = 0.0

  def add(self, case: str, outcome: str, note: str = "") -> None:
    self.counts[outcome] += 1
    if outcome in BAD:
      self.notes.append(f"{self.kind}, {case}: {outcome}: {note}")

  @property
  def is_good(self) -> bool:
    return not any(self.counts[outcome] for outcome in BAD)


def worst(outcomes: list[tuple[str, str]]) -> tuple[str, str]:
  """Of several (outcome, note) of one case."""
  return max(outcomes, key=lambda pair: OUTCOMES.index(pair[0]), default=("fine", ""))


def table(tallies: list[Tally]) -> str:
  """In Markdown."""
  lines = [
    "| kind | tried | told | traceback | executed | lost | silently other | seconds |",
    "| --- | --- | --- | --- | --- | --- | --- | --- |",
  ]
  for tally in tallies:
    cells = [sum(tally.counts.values()), *(tally.counts[o] for o in OUTCOMES[1:])]
    shown = " | ".join(f"{cell:,}" for cell in cells)
    lines.append(f"| {tally.kind} | {shown} | {tally.seconds:.0f} |")
  return "\n".join(lines)
