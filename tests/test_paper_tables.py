"""Tables 1-4: the published numbers, what stands beside them, and the three ways to write it."""

import csv
import io
import re

import pytest
import study_results
from study_results import mean, share

from jprotop.report import paper_tables, tables

# App. E and F of the paper, by backbone.
PUBLISHED = {
  "table1": {"resnet18": ("-", 75.75), "resnet34": ("79.2 ± 0.1", 79.58)}
  | {"vgg19": ("78.0 ± 0.2", 76.39), "vgg19_bn": (None, 79.24)},
  "table2": {"resnet18": (80.19, 44.75), "resnet34": (82.14, 46.12), "vgg19": (81.08, 49.60)},
  "table4": {"resnet18": (74.70, 76.32), "resnet34": (76.58, 77.70), "vgg19": (74.59, 76.30)},
}
PUBLISHED_TABLE3 = {
  "resnet18": [(75.8, 0.0, 99.5), (56.3, 15.8, 34.0)],
  "resnet34": [(79.6, 0.0, 93.0), (58.8, 24.2, 27.0)],
}
KEYS = {
  "table1": ("chen", "published"),
  "table2": ("published_altered", "published_original"),
  "table4": ("published_altered", "published_original"),
}
KEYS_TABLE3 = ("published_clean", "published_pgd_accuracy", "published_success_rate")


def columns_of(name):
  return next(columns for section, _, columns in paper_tables.TABLES if section == name)


@pytest.mark.parametrize("name", ["table1", "table2", "table4"])
def test_published_numbers_are_the_papers(name):
  for backbone, wanted in PUBLISHED[name].items():
    (row,) = paper_tables.all_tables(study_results.study(backbone))[name]
    assert tuple(row[key] for key in KEYS[name]) == wanted


def test_published_numbers_of_table_3_are_the_papers():
  for backbone, wanted in PUBLISHED_TABLE3.items():
    rows = paper_tables.all_tables(study_results.study(backbone))["table3"]
    assert [row["network"] for row in rows] == ["standard", "adversarial"]
    assert [tuple(row[key] for key in KEYS_TABLE3) for row in rows] == wanted
  rows = paper_tables.all_tables(study_results.study("vgg19"))["table3"]
  assert {row[key] for row in rows for key in KEYS_TABLE3} == {None}


@pytest.mark.parametrize("changes", [{"data": "toybirds"}, {"classes": 10}, {"data": "folder"}])
def test_published_numbers_stand_only_beside_the_papers_data(changes):
  found = paper_tables.all_tables(study_results.study("resnet18", **changes))
  keys = {"chen", "published", *KEYS["table2"], *KEYS_TABLE3}
  assert {row[key] for rows in found.values() for row in rows for key in keys & row.keys()} == {
    None
  }


def test_rows_hold_what_was_measured():
  results = study_results.study()
  found = paper_tables.all_tables(results)
  (first,), (second,), (fourth,) = (found[name] for name in ("table1", "table2", "table4"))
  assert (first["backbone"], first["data"], first["num_classes"]) == (
    "ResNet-34",
    "CUB-200-2011",
    200,
  )
  assert first["clean"] == share(790, 1000)
  assert (second["altered"], second["original"]) == (share(820, 1000), share(460, 1000))
  assert fourth["altered_every_class"] == share(759, 1000)
  standard, adversarial = found["table3"]
  assert standard["success_rate"] == share(150, 200)  # of the top 5, not of the first
  assert standard["success_rate_authors"] == share(186, 200)
  assert (adversarial["clean"], adversarial["pgd_accuracy"]) == (share(580, 1000), share(240, 1000))
  for name, _, columns in paper_tables.TABLES:
    assert all(columns.keys() == row.keys() for row in found[name])


def test_a_part_of_a_study_has_a_part_of_the_tables():
  results = study_results.study()
  for network in ("altered", "remedied", "adversarial"):
    del results["accuracy"][network]
  del results["success_rate"]
  found = paper_tables.all_tables(results)
  assert (found["table2"], found["table4"], len(found["table1"])) == ([], [], 1)
  (row,) = found["table3"]
  assert (row["success_rate"], row["success_rate_authors"], row["top_k"]) == (None, None, None)
  nothing = {"config": results["config"]}
  assert set(map(len, paper_tables.all_tables(nothing).values())) == {0}


def test_markdown_reads_well():
  text = tables.markdown_table(
    paper_tables.all_tables(study_results.study())["table1"], columns_of("table1")
  )
  assert text.splitlines() == [
    "| backbone | data set | classes | Chen et al. (2019) (%) | test accuracy | published (%) |",
    "| --- | --- | --- | --- | --- | --- |",
    "| ResNet-34 | CUB-200-2011 | 200 | 79.2 ± 0.1 | 79.0% (790/1000; 95% CI 76.4-81.4%) | 79.58 |",
  ]


def test_latex_is_balanced_and_escaped():
  rows = [{"name": r"100% of_{a} & b\c ~^#$<|>", "share": share(19, 20)}, {"name": "[x]*"}]
  text = tables.latex_table(rows, {"name": "Name", "share": "A_B"}, "50% & more")
  # What is left without escaped characters has braces in pairs and nothing that LaTeX would read.
  bare = re.sub(r"\\[&%$#_{}]", "", text)
  assert bare.count("{") == bare.count("}")
  assert not re.search(r"[%#_^~<|>]", bare)
  body = [line for line in bare.splitlines() if line.endswith(r"\\")]
  assert [line.count("&") for line in body] == [1, 1, 1]
  assert r"\caption{50\% \& more}" in text
  assert r"95.0\% (19/20; 95\% CI 76.4-99.1\%)" in text
  assert r"100\% of\_\{a\} \& b\textbackslash{}c \textasciitilde{}\textasciicircum{}" in text
  assert "\n{[}x]{*} & " in text  # LaTeX would take a bare [x] for an argument of the \\ before it
  assert text.count(r"\begin") == text.count(r"\end") == 2


def test_latex_of_the_papers_tables_has_a_cell_for_every_column():
  found = paper_tables.all_tables(study_results.study())
  for name, title, columns in paper_tables.TABLES:
    text = tables.latex_table(found[name], columns, title)
    (layout,) = re.findall(r"\\begin{tabular}{(l+)}", text)
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 1 + len(found[name])
    assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(layout)}
    assert "±" not in text


def test_csv_reads_back():
  rows = [
    {"name": 'a "b", c', "share": share(1, 3), "plain": 79.58},
    {"name": "d\ne", "share": None, "plain": None},
  ]
  text = tables.csv_table(rows, {"name": "Name", "share": "Share", "plain": "Plain"})
  first, second = csv.DictReader(io.StringIO(text))
  assert list(first) == [
    "name",
    "share",
    "share_count",
    "share_total",
    "share_low",
    "share_high",
    "plain",
  ]
  assert (first["name"], second["name"]) == ('a "b", c', "d\ne")
  assert float(first["share"]) == 1 / 3  # all digits
  assert (first["share_count"], first["share_total"], first["plain"]) == ("1", "3", "79.58")
  assert float(first["share_low"]) == share(1, 3)["interval"][0]
  assert set(second.values()) == {"d\ne", ""}


def test_csv_and_text_of_means_over_seeds():
  seeds = {"value": 0.75, "std": 0.01, "total": 3, "interval": [0.725, 0.775]}
  alone = {"value": 0.75, "std": None, "total": 1, "interval": None}
  assert tables.format_metric(seeds) == "75.0 ± 1.0% (3 seeds; 95% CI 72.5-77.5%)"
  assert tables.format_metric(alone) == "75.0% (1 seed, no interval)"
  assert tables.format_metric(mean(0.5)) == "0.50 (n = 100; 95% CI 0.45 to 0.55)"
  text = tables.csv_table([{"a": seeds}, {"a": share(1, 2)}], ["a"])
  assert text.splitlines()[0] == "a,a_count,a_total,a_low,a_high,a_std"
  assert text.splitlines()[1] == "0.75,,3,0.725,0.775,0.01"
  assert text.splitlines()[2].startswith("0.5,1,2,") and text.splitlines()[2].endswith(",")
