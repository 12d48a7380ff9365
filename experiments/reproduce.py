"""The whole paper: four networks, every experiment, tables, claims and the report. `make demo`.

  python -m experiments.reproduce --config=configs/demo.py --workdir=runs/demo
  python -m experiments.reproduce --config=configs/demo.py --workdir=runs/demo --only=table3
  python -m experiments.reproduce --config=configs/cub_resnet18.py --config.data.dir=DIR \
    --workdir=runs/cub --standard=RUN --jpeg=RUN
  python -m experiments.reproduce --collect=runs/resnet18,runs/vgg19 --workdir=runs/tables

It writes WORKDIR/results.json, tables/ (Markdown, LaTeX, CSV), report.html, and a folder for each
network. Given again, it continues: what is done already, and whose inputs are the same, is not
repeated. --collect merges studies of several backbones into the paper's tables, and of several
seeds into means with their spread.
"""

import pathlib

from absl import flags

from experiments import cli, study
from jprotop.errors import InputError
from jprotop.evaluation import claims, collect, paper_tables, results
from jprotop.figures import study_report, tables
from jprotop.files import ensure_folder, write_json, write_text
from jprotop.training import runs


def reproduce(
  config: dict, workdir: pathlib.Path, given: dict[str, pathlib.Path], only: list[str]
) -> dict:
  """Runs the stages that the given parts need (all, where none is given); returns the results."""
  unknown = [part for part in only if part not in study.PARTS]
  if unknown:
    raise InputError(f"--only={unknown[0]} is not known; parts are {', '.join(study.PARTS)}")
  paper = study.Study(config, workdir, given)
  ensure_folder(workdir)
  stages = [s for s in study.STAGES if not only or set(only) & set(s.parts)]
  try:
    study.run_stages(paper, stages)
  except InputError:
    write_results(paper)  # What was found before must not be lost.
    raise
  return write_results(paper)


def write_results(paper: study.Study) -> dict:
  """results.json, tables and report of all that a study has found so far; returns the results."""
  workdir = paper.workdir
  found = {
    "config": paper.config,
    "environment": results.environment(),
    "seed": paper.config["seed"],
    "protocol": paper.config["protocol"],
    "data": paper.dataset.identity,
    **study.collect_sections(paper),
  }
  found |= paper_tables.all_tables(found)
  found["claims"] = claims.claims(found)
  write_json(workdir / "results.json", found)
  write_tables(workdir, found)
  page = study_report.write_study_report(workdir, found)
  print(f"\nReport: {page.resolve()}")
  return found


def write_tables(workdir: pathlib.Path, found: dict) -> None:
  """tables/tableN.md, .tex and .csv of every table that has rows; prints them."""
  ensure_folder(workdir / "tables")
  for name, title, columns in paper_tables.TABLES:
    if not found.get(name):
      for old in (workdir / "tables").glob(f"{name}.*"):
        old.unlink()  # of numbers that are no longer true
      continue
    columns = tables.used_columns(found[name], columns)
    text = tables.markdown_table(found[name], columns)
    print(f"\n{title}\n{text}", end="")
    write_text(workdir / f"tables/{name}.md", f"{title}\n\n{text}")
    write_text(workdir / f"tables/{name}.tex", tables.latex_table(found[name], columns, title))
    write_text(workdir / f"tables/{name}.csv", tables.csv_table(found[name], columns))
  if found.get("claims"):
    text = tables.markdown_table(study_report.claim_rows(found), study_report.CLAIMS_COLUMNS)
    write_text(workdir / "tables/claims.md", f"{study_report.CLAIMS_CAPTION}\n\n{text}")


def collect_runs(folders: list[str], workdir: pathlib.Path) -> None:
  """Merges the results of several studies into one set of tables."""
  if workdir.resolve() in [pathlib.Path(folder).resolve() for folder in folders]:
    raise InputError(
      f"--workdir={workdir} is one of the studies to collect; name another folder for the tables"
    )
  found = [(folder, results.read_results(folder)) for folder in folders]
  missing = [folder for folder, numbers in found if not numbers]
  if missing:
    raise InputError(
      f"--collect: {missing[0]} has no results.json; run experiments.reproduce there first"
    )
  merged = collect.collect(found)
  ensure_folder(workdir)
  write_json(workdir / "results.json", merged)
  write_tables(workdir, merged)
  print(f"\nTables: {(workdir / 'tables').resolve()}")


def main() -> None:
  workdir = cli.workdir()
  if flags.FLAGS.collect:
    collect_runs(flags.FLAGS.collect, workdir)
    return
  given = {name: flags.FLAGS[name].value for name in runs.VARIANTS}
  given = {name: pathlib.Path(folder) for name, folder in given.items() if folder}
  reproduce(cli.config(), workdir, given, flags.FLAGS.only)


if __name__ == "__main__":
  cli.define_config()
  flags.DEFINE_list("only", [], f"Parts of the paper: {', '.join(study.PARTS)}; default: all.")
  flags.DEFINE_list("collect", [], "Folders of studies whose tables are to be merged.")
  for variant in runs.VARIANTS:
    flags.DEFINE_string(variant, None, f"A finished run to take as the {variant} network.")
  cli.run(main)
