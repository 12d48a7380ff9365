"""The report of a study or of one run: claims and tables first, then what each experiment shows."""

import fnmatch
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from jprotop import statistics
from jprotop.experiments.experiment import EXPERIMENTS, Experiment, Passage, Pictures
from jprotop.experiments.head_on_stomach_text import head_to_stomach
from jprotop.report import tables
from jprotop.report.html import Picture, Section, write_page
from jprotop.report.paper_tables import NETWORK_NAMES, TABLE_CAPTIONS, TABLES
from jprotop.runs import outputs

Results = Mapping[str, Any]

CLAIMS_COLUMNS = {
  "claim": "Claim",
  "verdict": "Here",
  "evidence": "Found",
  "detectable": "Smallest difference it could have found",
  "section": "In the paper",
}
CLAIMS_CAPTION = (
  "Each claim says that a number lies above or below a threshold, and has a margin: what is too "
  "small to matter. It holds if the whole 95% interval lies beyond the threshold. It is reversed "
  "if the whole interval lies more than the margin on the other side. There is no difference "
  "(larger than the margin) if the interval lies within the margin on both sides. Otherwise it is "
  "undecided. Shares of the same images are compared image by image, with Tango's interval and "
  "McNemar's exact p; Holm's p is adjusted for all such claims here. Means of the same images are "
  "compared image by image, too. Smallest difference: the distance from the threshold that an "
  "interval of this width finds in 8 of 10 samples. A claim is untested where what it takes for "
  "granted was not found, such as that a network is robust. Nothing was tuned to make one hold."
)
# The paper's order; what the paper does not have comes after it.
_SECTIONS = ("Section 3", "Section 4", "App. D.2", "App. E", "App. F.1", "App. F.2")


def all_claims(results: Results) -> list[dict]:
  """The claims of all experiments, in the order of the paper; without those not measured."""
  found = _adjusted([claim for e in EXPERIMENTS.values() for claim in e.claims(results)])
  known = [*_SECTIONS, *dict.fromkeys(claim["section"] for claim in found)]
  return sorted(found, key=lambda claim: known.index(claim["section"]))


def _adjusted(claims: list[dict]) -> list[dict]:
  """The claims, those that have a p with Holm's beside it."""
  tested = [c for c in claims if c.get("p") is not None and c["verdict"] != statistics.UNTESTED]
  for claim, p in zip(tested, statistics.holm([claim["p"] for claim in tested])):
    claim["p_holm"] = float(p)
    claim["evidence"] += f"; Holm's p = {p:.2g}"
  return claims


def write_study_report(workdir: pathlib.Path, results: Results) -> pathlib.Path:
  """report.html of a study, whose networks' figures lie in NETWORK/figures; returns its path.

  Pictures are those that `results` knows by their hashes, here as in a run's report: others may
  be of other images, or made with other settings, than the numbers beside them.
  """
  sections = [_claims(results), *(_paper_table(results, *table) for table in TABLES)]
  folders = {network: workdir / network for network in NETWORK_NAMES}
  sections += _passages(results, folders, study=True)
  return write_page(
    workdir / "report.html",
    title="This looks like that... does it?",
    summary=study_summary(results),
    sections=[section for section in sections if section is not None],
    results=results,
  )


def write_run_report(workdir: pathlib.Path, results: Results) -> pathlib.Path:
  """report.html of one run: what was measured on its network; returns its path."""
  network = results["config"]["train"]["network"]
  own = {
    name: {network: results[name][network]}
    for name in EXPERIMENTS
    if network in results.get(name, {})
  }
  return write_page(
    workdir / "report.html",
    title="Does this look like that?",
    summary=run_summary(own, network),
    sections=list(_passages({**results, **own}, {network: workdir}, study=False)),
    results=results,
  )


def _passages(
  results: Results, folders: Mapping[str, pathlib.Path], *, study: bool
) -> Iterator[Section]:
  """What each experiment shows of what was measured; without the passages that are empty."""
  for experiment in EXPERIMENTS.values():
    found = results.get(experiment.name, {})
    shown: set[str] = set()
    for passage in experiment.passages if found else ():
      wanted = (
        passage.pictures
        if study
        else _own_pictures(experiment, passage, next(iter(folders)), shown)
      )
      pictures, missing = [], 0
      for which in wanted:
        if which.network in found and which.network in folders:
          files = outputs.files_of(results, experiment.name, which.network)
          more, without = _pictures(folders[which.network], files, which)
          pictures, missing = pictures + more, missing + without
      rows = passage.rows(found) if passage.rows else []
      if pictures or rows:
        yield Section(
          heading=passage.heading,
          caption=passage.caption + _left_out(missing, experiment),
          pictures=pictures,
          rows=rows,
          columns=tables.used_columns(rows, passage.columns),
        )


def _own_pictures(
  experiment: Experiment, passage: Passage, network: str, shown: set[str]
) -> list[Pictures]:
  """A run's own figures, each under one heading: one about its network, if there is one."""
  found = []
  for which in passage.pictures:
    speaks = {p.network for other in experiment.passages for p in other.pictures
              if p.pattern == which.pattern}  # fmt: skip
    fits = which.network == network or network not in speaks
    if fits and which.pattern not in shown:
      shown.add(which.pattern)
      most = max(which.most, 6) if "gallery" in which.pattern else which.most
      found.append(Pictures(network=network, pattern=which.pattern, most=most))
  return found


def _pictures(
  folder: pathlib.Path, files: outputs.Files, which: Pictures
) -> tuple[list[Picture], int]:
  """The pictures of a pattern, and how many of them are not what was written any more."""
  names = sorted(name for name in files if fnmatch.fnmatch(name, f"figures/{which.pattern}"))
  there = [name for name in names if outputs.is_unchanged(folder, name, files[name])]
  found = []
  for name in there[: which.most]:
    caption = f"The {NETWORK_NAMES[which.network]} network: {_name(folder / name)}."
    if len(there) > which.most and name == there[which.most - 1]:
      caption += f" The first {which.most} of {len(there)}; the others are in figures/."
    found.append(Picture((folder / name).read_bytes(), caption))
  return found, len(names) - len(there)


def _left_out(missing: int, experiment: Experiment) -> str:
  """What a caption says where pictures cannot be shown."""
  if not missing:
    return ""
  what = "1 picture is" if missing == 1 else f"{missing} pictures are"
  return (
    f" {what} left out: the files are gone, or are not those of these numbers any more; repeat "
    f"{experiment.name.replace('_', '-')} to have them."
  )


def _name(path: pathlib.Path) -> str:
  """A picture's file name as words; those of a series count from 1."""
  words = path.stem.split("_")
  if words[-1].isdigit():
    words[-1] = str(int(words[-1]) + 1)
  return " ".join(words)


def study_summary(results: Results) -> str:
  """What was studied, and how many of the paper's claims held, in a few sentences."""
  train = results["config"]["train"]
  claims = [claim for claim in results.get("claims", []) if not claim["ours"]]
  text = f"{train['model']['backbone']} on {train['data']['name']}, protocol {train['protocol']}. "
  if claims:
    found = [claim["verdict"] for claim in claims]
    hold, fail, equal, leave, untested = (
      f"{(count := found.count(verdict))} {one if count == 1 else more}"
      for verdict, one, more in (
        ("holds", "holds", "hold"),
        ("reversed", "is", "are"),
        ("no difference", "shows", "show"),
        ("undecided", "is", "are"),
        (statistics.UNTESTED, "is", "are"),
      )
    )
    text += (
      f"Of the claims of the paper that were put to the test, {hold} here, {fail} reversed, "
      f"{equal} no difference that matters, and {leave} left undecided by the images at hand. "
    )
    if statistics.UNTESTED in found:
      text += f"{untested} untested, because the premise was not met. "
  attack = results.get("head_on_stomach", {}).get("standard")
  return text + (_attack_summary(attack) if attack else "")


def _attack_summary(attack: Mapping[str, Any]) -> str:
  moved, control = (
    tables.format_share(attack["metrics"][f"{name}_and_prediction_kept"])
    for name in ("moved", "control_moved")
  )
  text = (
    f"Noise of at most {attack['eps'] * 255:.3g}/255 moved a prototype to the chosen place, and "
    f"kept the predicted class, on {moved} of the attacked images; random noise of the same size "
    f"did on {control}. "
  )
  if arrived := head_to_stomach(attack):
    text += f"From head to stomach it really went on {tables.format_share(arrived)}. "
  return text


def run_summary(found: Results, network: str) -> str:
  """The headline numbers of one network, each with its count and its interval."""
  text = ""
  if attack := found.get("head_on_stomach", {}).get(network):
    text += _attack_summary(attack)
    higher, kept = (
      tables.format_share(attack["metrics"][name])
      for name in ("success_exceeds_clean_maximum", "prediction_kept")
    )
    text += (
      f"On {higher} of these successes it scored higher there than anywhere on the same image "
      f"before. The predicted class stayed the same on {kept}. "
    )
  for split, numbers in found.get("accuracy", {}).get(network, {}).items():
    accuracy = tables.format_share(numbers["clean"])
    text += f"The network classifies {accuracy} of the {split} images correctly. "
  return text.strip() or "This run holds no headline numbers yet."


def claim_rows(results: Results) -> list[dict]:
  """The claims as a table shows them; what we added to the paper's own is marked."""
  return [
    {
      **claim,
      "claim": f"{claim['claim']} (our own check)" if claim["ours"] else claim["claim"],
      "verdict": _with_reason(claim),
      "detectable": None if (least := claim.get("detectable")) is None else f"{least:.2g}",
    }
    for claim in results.get("claims", [])
  ]


def _with_reason(claim: Mapping[str, Any]) -> str:
  """The verdict; of a claim that is untested with the reason."""
  reason = (claim.get("premise") or {}).get("reason")
  return f"{claim['verdict']}: {reason}" if reason else claim["verdict"]


def _claims(results: Results) -> Section | None:
  if not results.get("claims"):
    return None
  return Section(
    heading="What the paper says, and what was found here",
    caption=CLAIMS_CAPTION,
    rows=claim_rows(results),
    columns=CLAIMS_COLUMNS,
  )


def _paper_table(results: Results, name: str, title: str, columns: Mapping) -> Section | None:
  rows = results.get(name, [])
  if not rows:
    return None
  caption = TABLE_CAPTIONS[name]
  if any(row.get(key) is not None for row in rows for key in columns if "published" in key):
    caption += " The paper's own numbers, in percent, stand beside ours."
  columns = tables.used_columns(rows, columns)
  return Section(heading=title, caption=caption, rows=rows, columns=columns)
