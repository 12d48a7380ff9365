"""One self-contained HTML page of a run: its numbers, curves, prototypes and attacked images.

python -m experiments.report --workdir=runs/demo/standard
"""

import pathlib
from collections.abc import Iterator

from experiments import cli
from jprotop import metrics, regions
from jprotop.data.batches import to_float
from jprotop.figures import canvas, curves, panels, tables
from jprotop.figures.run_report import write_run_report
from jprotop.training import runs
from jprotop.training.runs import Run


def measure(run: Run, place: pathlib.Path) -> dict:
  """How the run was trained: its curves, its prototypes as a gallery, and what the push cost."""
  history = runs.read_history(run.workdir, run.info)
  if history:
    canvas.save(curves.training_curves(history), place / "figures/training_curves.png")
  if run.provenance is not None:
    for number, page in enumerate(panels.prototype_gallery(_prototypes(run))):
      canvas.save(page, place / f"figures/gallery_{number:03d}.png")
  push = push_numbers(history)
  if push is None:
    return {}
  print(
    f"Push: {push['distinct']} different patches for {push['num_prototypes']} prototypes; test "
    f"accuracy {tables.format_share(push['accuracy_before'])} before, "
    f"{tables.format_share(push['accuracy_after'])} after"
  )
  return {"push": push}


def push_numbers(history: list[dict]) -> dict | None:
  """The `push` section of results.json from the rows of history.jsonl."""
  rows = [row for row in history if row["phase"] == "push"]
  summary = next((row for row in rows if "num_prototypes" in row), None)
  tested = next((row for row in rows if row.get("split") == "test"), None)
  if summary is None or tested is None:
    return None
  share = lambda count: metrics.share([i < count for i in range(tested["count"])])  # noqa: E731
  return {
    "num_prototypes": summary["num_prototypes"],
    "distinct": summary["distinct"],
    "accuracy_before": share(tested["correct_before"]),
    "accuracy_after": share(tested["correct"]),
  }


def _prototypes(run: Run) -> Iterator[panels.Prototype]:
  for j, (image, box) in enumerate(zip(run.provenance["image"], run.provenance["box"])):
    yield panels.Prototype(
      prototype_id=j,
      prototype_class=run.class_names[run.model.prototype_class[j]],
      source_image=to_float(run.seen.train.pixels[image]),
      source_box=regions.Box(*box.tolist()),
      image_id=run.seen.train.image_id[image],
    )


def main() -> None:
  numbers = cli.measure_run("report", measure)
  print(f"report: {write_run_report(cli.workdir(), numbers)}")


if __name__ == "__main__":
  cli.run(main)
