r"""Reproduce the whole paper: four networks, every experiment, tables, claims and the report.

  jprotop reproduce --config=demo --workdir=runs/demo
  jprotop reproduce --config=demo --workdir=runs/demo --only=table3
  jprotop reproduce --config=cub_resnet18 --config.data.dir=DIR --workdir=runs/cub \
    --standard=RUN --altered=RUN
  jprotop reproduce --collect=runs/resnet18,runs/vgg19 --workdir=runs/tables

It writes WORKDIR/results.json, tables/ (Markdown, LaTeX, CSV), report.html, and a folder for each
network. Rerunning skips finished stages whose inputs are the same. --collect merges studies of
several backbones into the paper's tables, and of several seeds into means with their spread.
--alteration=speckle does Section 4 and its remedy with another alteration than JPEG, as strong as
JPEG of quality 20 is on the training images.
"""

import pathlib

import numpy as np
from absl import flags

from jprotop.cli import flags as cli
from jprotop.cli import study
from jprotop.data.alterations import ALTERATIONS, Scheme, severity
from jprotop.errors import InputError
from jprotop.experiments import collect, pages
from jprotop.files import check_writable, ensure_folder, held, user_path, write_text
from jprotop.report import paper_tables, tables
from jprotop.runs import processes, results
from jprotop.runs import run as runs
from jprotop.runs.config import NETWORKS
from jprotop.runs.config_checks import check_config
from jprotop.runs.config_keys import apply_changes

# What other alterations are as strong as (Section 4), and on how many images that is seen.
_PAPERS = Scheme("jpeg", 20)
_COMPARED = 100


def define_flags() -> None:
  cli.define_workdir()
  cli.define_config(trains=True)
  flags.DEFINE_list("only", [], f"Parts of the paper: {', '.join(study.parts())}; default: all.")
  flags.DEFINE_list("collect", [], "Folders of studies whose tables are to be merged.")
  flags.DEFINE_string(
    "alteration",
    None,
    f"Another alteration, as strong as the paper's: {', '.join(ALTERATIONS)}.",
  )
  for network in NETWORKS:
    flags.DEFINE_string(network, None, f"A finished run to take as the {network} network.")


def with_alteration(config: dict, name: str) -> dict:
  """The config with another alteration, whose parameter costs training images what JPEG 20 costs.

  Raises:
    InputError: no such alteration, or no parameter of it costs as much.
  """
  if name not in ALTERATIONS:
    raise InputError(
      f"--alteration={name} is not known; it must be one of {', '.join(ALTERATIONS)}"
    )
  split = runs.open_dataset(check_config(config)).train
  chosen = np.linspace(0, len(split) - 1, min(_COMPARED, len(split))).astype(int)
  images = [split.crop(int(i)) for i in chosen]
  wanted = severity.mean_psnr(_PAPERS, images)
  parameter = severity.matched(name, images, wanted)
  found = severity.mean_psnr(Scheme(name, parameter), images)
  print(
    f"{name}: {ALTERATIONS[name].parameter} {parameter:g} gives {found:.1f} dB (peak "
    f"signal-to-noise ratio) on {len(images)} training images; JPEG of quality 20 gives "
    f"{wanted:.1f} dB",
    flush=True,
  )
  setting = {"name": name, "parameter": parameter}
  changes = {
    f"{part}.alteration.{key}": value
    for part in ("train", "measure")
    for key, value in setting.items()
  }
  return apply_changes(config, changes)


def reproduce(
  config: dict, workdir: pathlib.Path, given: dict[str, pathlib.Path], only: list[str]
) -> dict:
  """Runs the stages that the given parts need (all, where none is given); returns the results."""
  unknown = [part for part in only if part not in study.parts()]
  if unknown:
    raise InputError(f"--only={unknown[0]} is not known; parts are {', '.join(study.parts())}")
  processes.from_first(lambda: check_writable(workdir))
  paper = study.Study(config, workdir, given)
  stages = chosen_stages(paper.config, only)
  with processes.kept_by_first(workdir) as kept, held(kept):
    ensure_folder(workdir)
    try:
      study.run_stages(paper, stages)
    except InputError:
      write_results(paper)  # What was found before must not be lost.
      raise
    return write_results(paper)


def chosen_stages(config: dict, only: list[str]) -> list[study.Stage]:
  """The stages that the given parts need; without parts, all that apply to a config.

  Raises:
    InputError: one that was given does not apply.
  """
  if not only:
    return [stage for stage in study.stages() if not stage.experiment.lacks(config)]
  chosen = [stage for stage in study.stages() if set(only) & stage.parts]
  for stage in chosen:
    if lack := stage.experiment.lacks(config):
      raise InputError(f"--only={stage.name} needs {lack}")
  return chosen


def write_results(paper: study.Study) -> dict:
  """results.json, tables and report of all that a study has found so far; returns the results."""
  workdir = paper.workdir
  found = {
    **results.header(paper.config),
    "environment": {"reproduce": results.environment()},
    "data": paper.dataset.identity,
    **study.collect_records(paper),
  }
  found |= paper_tables.all_tables(found)
  found["claims"] = pages.all_claims(found)
  results.write_results(workdir, found)
  write_tables(workdir, found)
  page = pages.write_study_report(workdir, found)
  print(f"\nReport: {page.resolve()}")
  return found


def write_tables(workdir: pathlib.Path, found: dict) -> None:
  """tables/NAME.md, .tex and .csv of every table that has rows; prints them."""
  ensure_folder(workdir / "tables")
  for name, title, columns in (*paper_tables.TABLES, paper_tables.TARGETS):
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
    text = tables.markdown_table(pages.claim_rows(found), pages.CLAIMS_COLUMNS)
    write_text(workdir / "tables/claims.md", f"{pages.CLAIMS_CAPTION}\n\n{text}")


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
      f"--collect: {missing[0]} has no results.json; run jprotop reproduce there first"
    )
  merged = collect.collect(found)
  with held(workdir):
    results.write_results(workdir, merged)
    write_tables(workdir, merged)
  print(f"\nTables: {(workdir / 'tables').resolve()}")


def main() -> None:
  workdir, given = cli.workdir(), flags.FLAGS
  if given.collect:
    collect_runs(given.collect, workdir)
    return
  networks = {name: user_path(out) for name in NETWORKS if (out := given[name].value)}
  config = cli.config()
  if given.alteration:
    config = with_alteration(config, given.alteration)
  reproduce(config, workdir, networks, given.only)
