r"""Reproduce the whole paper: four networks, every experiment, tables, claims and the report.

  jprotop reproduce --config=demo --workdir=runs/demo
  jprotop reproduce --config=demo --workdir=runs/demo --only=table3
  jprotop reproduce --config=cub_resnet18 --config.data.dir=DIR --workdir=runs/cub \
    --standard=RUN --altered=RUN
  jprotop reproduce --config=demo --workdir=runs/seeds --seeds=5 --draws=5
  jprotop reproduce --collect=runs/resnet18,runs/vgg19 --workdir=runs/tables

It writes WORKDIR/results.json, tables/ (Markdown, LaTeX, CSV), report.html, and a folder for each
network. Rerunning skips finished stages whose inputs are the same. --seeds trains and measures that
many studies, in WORKDIR/seed0 and so on, and collects them; --draws does so for draws of the
altered classes. --collect merges studies of several backbones into the paper's tables, and of
several seeds or draws into means with their spread.
--alteration=speckle does Section 4 and its remedy with another alteration than JPEG, as strong as
JPEG of quality 20 is on the training images.
"""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from absl import flags

from jprotop.cli import estimate, seeds, study
from jprotop.cli import flags as cli
from jprotop.data.alterations import ALTERATIONS, Scheme, severity
from jprotop.errors import InputError
from jprotop.experiments import collect, collected_page, pages
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
  flags.DEFINE_list("networks", list(NETWORKS), "Networks to train and measure.")
  flags.DEFINE_integer(
    "seeds", None, "So many training seeds, each in a folder of its own.", lower_bound=1
  )
  flags.DEFINE_integer(
    "draws", None, "So many draws of the altered classes, with one training seed.", lower_bound=1
  )
  flags.DEFINE_list("collect", [], "Folders of studies whose numbers are to be merged.")
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
  config: dict,
  workdir: pathlib.Path,
  given: dict[str, pathlib.Path],
  only: list[str],
  *,
  networks: Sequence[str] = tuple(NETWORKS),
  wanted: Callable[[study.Stage], bool] = lambda stage: True,
) -> dict:
  """Runs the stages that the given parts need (all, where none is given); returns the results.

  Args:
    networks: those that are trained and measured.
    wanted: of a stage, whether it is run; not what a further draw of the classes does not change.
  """
  for flag, items, known in (("only", only, study.parts()), ("networks", networks, NETWORKS)):
    if unknown := [item for item in items if item not in known]:
      what = "parts" if flag == "only" else flag
      raise InputError(f"--{flag}={unknown[0]} is not known; {what} are {', '.join(known)}")
  processes.from_first(lambda: check_writable(workdir))
  processes.from_first(lambda: seeds.check_single(workdir))
  paper = study.Study(config, workdir, given)
  stages = [
    stage
    for stage in chosen_stages(paper.config, only)
    if set(stage.needs) <= {*networks} and wanted(stage)
  ]
  guess = estimate.Estimate(paper, stages)
  with processes.kept_by_first(workdir) as kept, held(kept):
    ensure_folder(workdir)
    try:
      study.run_stages(paper, stages, lambda: _tell(guess))
    except InputError:
      write_results(paper)  # What was found before must not be lost.
      raise
    return write_results(paper)


def chosen_stages(config: dict, only: list[str]) -> list[study.Stage]:
  """The stages that the given parts need; without parts, all that a config allows and wants.

  Raises:
    InputError: one that was given does not apply.
  """
  if not only:
    every = ((stage, stage.experiment) for stage in study.stages())
    return [stage for stage, of in every if not of.lacks(config) and of.wanted(config)]
  chosen = [stage for stage in study.stages() if set(only) & stage.parts]
  for stage in chosen:
    if lack := stage.experiment.lacks(config):
      raise InputError(f"--only={stage.name} needs {lack}")
  return chosen


def _tell(guess: estimate.Estimate) -> None:
  if line := processes.from_first(guess.tell):
    print(f"\n{line}", flush=True)


def reproduce_several(
  config: dict, workdir: pathlib.Path, counts: tuple[int, int], only: list[str], networks: list[str]
) -> None:
  """A study for each training seed and draw of classes in a folder of its own; then all together.

  Finished stages of each are not repeated.

  Args:
    counts: how many seeds, and how many draws.
  """
  processes.from_first(lambda: check_writable(workdir))
  planned = processes.from_first(lambda: seeds.repetitions(config, workdir, *counts))
  for number, one in enumerate(planned, 1):
    print(f"\n=== study {number} of {len(planned)}: {one.folder.name}", flush=True)
    given = processes.from_first(one.given)
    reproduce(one.config, one.folder, given, only, networks=networks, wanted=one.measures)
  folders = [str(one.folder) for one in planned]
  processes.from_first(lambda: collect_runs(folders, workdir))


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
    numbers = tables.csv_table(*collected_page.all_numbers(merged))
    write_text(workdir / "tables/numbers.csv", numbers)
    page = collected_page.write_collected_report(workdir, merged)
  print(f"\nTables: {(workdir / 'tables').resolve()}\nReport: {page.resolve()}")


def main() -> None:
  workdir, given = cli.workdir(), flags.FLAGS
  if given.collect:
    collect_runs(given.collect, workdir)
    return
  finished = {name: user_path(out) for name in NETWORKS if (out := given[name].value)}
  config = cli.config()
  if given.alteration:
    config = with_alteration(config, given.alteration)
  if given.seeds is None and given.draws is None:
    reproduce(config, workdir, finished, given.only, networks=given.networks)
    return
  if finished:
    name = next(iter(finished))
    raise InputError(
      f"--{name} gives the network of one seed, and --seeds and --draws train several; leave it out"
    )
  counts = (given.seeds or 1, given.draws or 1)
  reproduce_several(config, workdir, counts, given.only, given.networks)
