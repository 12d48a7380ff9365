"""The report of several studies: claims over seeds, the paper's tables, and every number."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jprotop.experiments.experiment import EXPERIMENTS
from jprotop.report import seed_charts, tables
from jprotop.report.html import Picture, Section, write_page
from jprotop.report.paper_tables import NETWORK_NAMES, TABLE_CAPTIONS, TABLES, TARGETS

Collected = Mapping[str, Any]

CLAIM_COLUMNS = {
  "claim": "Claim",
  "verdicts": "Study by study",
  "verdict": "Over all, on these images",
  "found": "Found",
  "section": "In the paper",
}
_SOURCE_COLUMNS = {
  "name": "Study",
  "backbone": "Backbone",
  "seed": "Training seed",
  "draw": "Draw of classes",
  "classes": "Altered classes",
}
_INTERVALS = (
  "± is the standard deviation over the studies. The interval is Student's t over them: it is "
  "about other seeds on the same test images. From ten studies on, and where the value on each "
  "image is known, studies and images are drawn anew, each on their own, so that it is about other "
  "images, too. With two or three studies it is very wide."
)
# What the chart shows of each network: accuracies are what every study has.
_CHARTED = {
  "test.clean": "original images",
  "test.altered": "altered images",
  "test.pgd_accuracy": "under PGD",
}


def write_collected_report(workdir: pathlib.Path, found: Collected) -> pathlib.Path:
  """report.html of what `collect` returned; returns its path."""
  sections = [_sources(found), *_claims(found), *_charts(found), *_tables(found), *_numbers(found)]
  return write_page(
    workdir / "report.html",
    title="This looks like that... in every seed?",
    summary=summary(found),
    sections=sections,
    results=found,
  )


def summary(found: Collected) -> str:
  """Which studies they are, and how many of the paper's claims came out alike in all of them."""
  text = f"{len(found['sources'])} studies were collected. "
  for factor in found["factors"]:
    claims = [claim for claim in factor["claims"] if not claim["ours"]]
    if len(factor["studies"]) == 1 or not claims:
      continue
    alike = sum(len(claim["verdicts"]) == 1 for claim in claims)
    holds = sum(set(claim["verdicts"]) == {"holds"} for claim in claims)
    text += (
      f"Over {factor['label']} ({factor['backbone']}): of {len(claims)} claims of the paper, "
      f"{alike} got the same verdict in every study, and {holds} of them held in all. "
    )
  return text


def claim_rows(factor: Mapping[str, Any]) -> list[dict]:
  """The claims of a factor as a table shows them."""
  return [
    {
      **claim,
      "claim": f"{claim['claim']} (our own check)" if claim["ours"] else claim["claim"],
      "verdicts": _counts(claim["verdicts"]),
      "found": _found(claim),
    }
    for claim in factor["claims"]
  ]


def _found(claim: Mapping[str, Any]) -> str:
  """The quantity over the studies and in each of them, and what is claimed of it."""
  rule = f"claimed {claim['direction']} {claim['threshold']:g} (margin {claim['margin']:g})"
  if claim["over"] is None:
    return f"measured on no image; {rule}"
  short = _short(list(claim["values"]))
  each = ", ".join(f"{short[name]} {_text(v, 'number')}" for name, v in claim["values"].items())
  return f"{tables.format_metric(claim['over'])}; {each}; {rule}"


def number_rows(factor: Mapping[str, Any], experiment: str) -> list[dict]:
  """The numbers of one experiment as a table shows them."""
  return [
    {
      "network": NETWORK_NAMES[row["network"]],
      "number": row["number"].replace("_", " ").replace(".", ", "),
      "over": row["over"],
      "values": ", ".join(_text(v, row["over"]["unit"]) for v in row["values"].values()),
    }
    for row in factor["numbers"]
    if row["experiment"] == experiment
  ]


def all_numbers(found: Collected) -> tuple[list[dict], list[str]]:
  """Every number as a row of a file, with each study's value, and the columns."""
  rows = [
    {"factor": factor["label"], "backbone": factor["backbone"], **row, **row["values"]}
    for factor in found["factors"]
    for row in factor["numbers"]
  ]
  columns = ["factor", "backbone", "experiment", "network", "number", "over"]
  return rows, [*columns, *(source["name"] for source in found["sources"])]


def _counts(verdicts: Mapping[str, int]) -> str:
  """ "holds in 2, undecided in 1"."""
  return ", ".join(f"{verdict} in {count}" for verdict, count in verdicts.items())


def _text(value: float | None, unit: str) -> str:
  """A study's number, short; a share or a difference of shares in percent."""
  if value is None:
    return "n/a"
  return f"{value:.3g}" if unit == "number" else f"{100 * value:.1f}"


def _short(names: Sequence[str]) -> dict[str, str]:
  """The last part of each name, where that tells them apart."""
  last = {name: pathlib.PurePath(name).name for name in names}
  return last if len(set(last.values())) == len(names) else {name: name for name in names}


def _sources(found: Collected) -> Section:
  rows = [
    {**source, "classes": source["classes"] and ", ".join(source["classes"])}
    for source in found["sources"]
  ]
  return Section(
    heading="The studies",
    caption="The seed of the training, and the draw of the classes whose images are altered, are "
    "two factors. Numbers over training seeds take one study for each seed; numbers over draws "
    f"take the studies of one training seed. {_INTERVALS}",
    rows=rows,
    columns=tables.used_columns(rows, _SOURCE_COLUMNS),
  )


def _claims(found: Collected) -> Iterator[Section]:
  for factor in found["factors"]:
    if rows := claim_rows(factor):
      yield Section(
        heading=f"What the paper says, over {factor['label']}",
        caption=f"{factor['backbone']}. How many studies gave each claim which verdict, and what "
        "the interval over all of them says; that is left undecided where all studies gave the "
        "same number, or one of them left it open for another reason than its interval.",
        rows=rows,
        columns=CLAIM_COLUMNS,
      )


def _charts(found: Collected) -> Iterator[Section]:
  """A picture of each backbone's accuracies, where there are several studies of it."""
  for backbone in dict.fromkeys(factor["backbone"] for factor in found["factors"]):
    factors = [f for f in found["factors"] if f["backbone"] == backbone and len(f["studies"]) > 1]
    if shares := charted(factors):
      figure = seed_charts.spread(shares, title=f"Accuracies of {backbone}")
      text = (
        f"{backbone}: every study's accuracies as dots, their mean as a stroke, and its 95% "
        "interval as a bar, by what varies among the studies."
      )
      yield Section(
        heading=f"How far the studies are apart: {backbone}",
        caption="Test images that are classified correctly.",
        pictures=[Picture(figure, text)],
      )


def charted(factors: Sequence[Mapping[str, Any]]) -> dict[str, list[seed_charts.Series]]:
  """The accuracies of each network in all studies of each factor, by what they are called."""
  shares: dict[str, list[seed_charts.Series]] = {}
  for factor in factors:
    for row in factor["numbers"]:
      if row["experiment"] != "accuracy" or row["number"] not in _CHARTED:
        continue
      name = f"{NETWORK_NAMES[row['network']]}, {_CHARTED[row['number']]}"
      values = [value for value in row["values"].values() if value is not None]
      series = seed_charts.Series(factor["label"], values, row["over"])
      shares.setdefault(name, []).append(series)
  return shares


def _tables(found: Collected) -> Iterator[Section]:
  for name, title, columns in (*TABLES, TARGETS):
    if rows := found[name]:
      caption = TABLE_CAPTIONS.get(name, "")
      used = tables.used_columns(rows, columns)
      yield Section(heading=title, caption=caption, rows=rows, columns=used)


def _numbers(found: Collected) -> Iterator[Section]:
  for factor in found["factors"]:
    for experiment in EXPERIMENTS:
      if rows := number_rows(factor, experiment):
        yield Section(
          heading=f"All numbers of {experiment.replace('_', ' ')}, over {factor['label']}",
          caption=f"{factor['backbone']}. Plain numbers that are the same in all studies are left "
          "out: they are settings.",
          rows=rows,
          columns={
            "network": "Network",
            "number": "Number",
            "over": "Mean",
            "values": "In " + ", ".join(_short(factor["studies"]).values()),
          },
        )
