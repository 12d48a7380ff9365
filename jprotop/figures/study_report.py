"""The report of a whole study: claims and tables first, then what they rest on, with pictures."""

import pathlib
from collections.abc import Iterable, Mapping

from jprotop.evaluation.paper_tables import TABLES
from jprotop.figures import tables
from jprotop.figures.report import Picture, Section, write_page
from jprotop.figures.study_content import CONTENT, NETWORKS, Results

_BY_NETWORK = ("evaluate", "success_rate", "jpeg_drift", "push")
_HELD = {True: "holds", False: "does not hold", "undecided": "undecided"}
CLAIMS_COLUMNS = {"claim": "Claim", "section": "Section", "evidence": "Found", "holds": "Here it"}
CLAIMS_CAPTION = (
  "A statement holds if the whole 95% interval of the number behind it is on its side, does not "
  "hold if the whole interval is on the other side, and is undecided otherwise. Nothing was tuned "
  "to make one hold."
)


def write_study_report(workdir: pathlib.Path, results: Results) -> pathlib.Path:
  """Writes report.html from results.json's sections and the figures in the networks' folders.

  Args:
    workdir: the study's folder; NETWORK/figures below it holds the pictures.
    results: what results.json holds.
  """
  sections = [_claims(results)]
  sections += [_paper_table(results, *table) for table in TABLES]
  for heading, caption, rows, columns, pictures in CONTENT:
    found = list(_pictures(workdir, results, pictures))
    numbers = rows(results) if rows else []
    if found or numbers:
      sections.append(
        Section(heading=heading, caption=caption, pictures=found, rows=numbers, columns=columns)
      )
  return write_page(
    workdir / "report.html",
    title="This looks like that... does it?",
    summary=summary(results),
    sections=[section for section in sections if section is not None],
    results=results,
  )


def summary(results: Results) -> str:
  """What was studied, and how many of the paper's claims held, in a few sentences."""
  config = results["config"]
  claims = [claim for claim in results.get("claims", []) if not claim["ours"]]
  data, model = config["data"], config["model"]
  text = f"{model['backbone']} on {data['name']}, protocol {config['protocol']}. "
  counts = {name: sum(c["holds"] is name for c in claims) for name in (True, False)}
  counts["undecided"] = sum(c["holds"] == "undecided" for c in claims)
  if claims:
    text += (
      f"Of {len(claims)} statements of the paper that were put to the test, {counts[True]} hold "
      f"here, {counts[False]} do not, and {counts['undecided']} are left undecided "
      "by the images at hand. "
    )
  attack = results.get("head_on_stomach", {}).get("metrics")
  if attack:
    moved = tables.format_share(attack["moved_to_target"])
    control = tables.format_share(attack["control_moved"])
    text += (
      f"Noise of at most {results['head_on_stomach']['eps'] * 255:.3g}/255 moved a prototype to "
      f"the chosen place on {moved} of the attacked images; random noise of the same size on "
      f"{control}."
    )
  return text


def claim_rows(results: Results) -> list[dict]:
  """The claims as a table shows them; what we added to the paper's own is marked."""
  return [
    {
      **claim,
      "claim": f"{claim['claim']} (our own check)" if claim["ours"] else claim["claim"],
      "holds": _HELD[claim["holds"]],
    }
    for claim in results.get("claims", [])
  ]


def _claims(results: Results) -> Section | None:
  if not results.get("claims"):
    return None
  return Section(
    heading="What the paper says, and what was found here",
    caption=CLAIMS_CAPTION,
    rows=claim_rows(results),
    columns=CLAIMS_COLUMNS,
  )


_TABLE_CAPTIONS = {
  "table1": "The standard network on the test images as they are.",
  "table2": "A network for which the images of some classes are compressed, in training as in the "
  "altered test set. If it learnt artefacts, accuracy falls on the original test set.",
  "table3": "What adversarial training changes: clean accuracy, accuracy under PGD against the "
  "class, and how often Head on Stomach succeeds with one of the top prototypes, by protocol.",
  "table4": "A network that saw every image compressed by a toss of a coin. Compare the two test "
  "sets with those of Table 2.",
}


def _paper_table(results: Results, name: str, title: str, columns: Mapping) -> Section | None:
  rows = results.get(name, [])
  if not rows:
    return None
  caption = _TABLE_CAPTIONS[name]
  if any(row.get(key) is not None for row in rows for key in columns if "published" in key):
    caption += " The paper's own numbers, in percent, stand beside ours."
  columns = tables.used_columns(rows, columns)
  return Section(heading=title, caption=caption, rows=rows, columns=columns)


def _pictures(workdir: pathlib.Path, results: Results, wanted: tuple) -> Iterable[Picture]:
  """Pictures of what results.json holds: not of an earlier run with other settings."""
  for network, section, pattern, most in wanted:
    numbers = results.get(section, {})
    if not numbers or (section in _BY_NETWORK and network not in numbers):
      continue
    for path in sorted((workdir / network / "figures").glob(pattern))[:most]:
      caption = f"The {NETWORKS[network]} network: {_name(path)}."
      yield Picture(path.read_bytes(), caption)


def _name(path: pathlib.Path) -> str:
  """A picture's file name as words; those of a series count from 1."""
  words = path.stem.split("_")
  if words[-1].isdigit():
    words[-1] = str(int(words[-1]) + 1)
  return " ".join(words)
