"""One self-contained HTML page of a run: its numbers, curves, prototypes and attacked images.

python -m experiments.report --workdir=runs/demo
"""

import pathlib

import jprotop
from experiments import cli
from jprotop import metrics, regions
from jprotop.data.batches import to_float
from jprotop.data.dataset import Dataset
from jprotop.evaluation import results
from jprotop.figures import canvas, curves, panels, tables
from jprotop.figures.run_report import write_run_report
from jprotop.training import runs


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


def write_report(workdir: pathlib.Path, dataset: Dataset | None = None) -> pathlib.Path:
  """Draws the curves and the gallery, and writes report.html."""
  model, _, info = jprotop.load(str(workdir))
  dataset = runs.dataset_of(info, dataset)
  history = runs.read_history(str(workdir), info)
  canvas.save(curves.training_curves(history), workdir / "figures/training_curves.png")
  if info["provenance"] is not None:
    pages = panels.prototype_gallery(_prototypes(model, dataset, info))
    for number, page in enumerate(pages):
      canvas.save(page, workdir / f"figures/gallery_{number:03d}.png")
  push = push_numbers(history)
  sections = {"push": push} if push else {}
  if push:
    print(
      f"Push: {push['distinct']} different patches for {push['num_prototypes']} prototypes; test "
      f"accuracy {tables.format_share(push['accuracy_before'])} before, "
      f"{tables.format_share(push['accuracy_after'])} after"
    )
  numbers = results.update_results(workdir, info["config"], "report", **sections)
  return write_run_report(workdir, numbers)


def _prototypes(model, dataset: Dataset, info: dict):
  provenance = info["provenance"]
  for j, (image, box) in enumerate(zip(provenance["image"], provenance["box"])):
    yield panels.Prototype(
      prototype_id=j,
      prototype_class=info["class_names"][model.prototype_class[j]],
      source_image=to_float(dataset.train.pixels[image]),
      source_box=regions.Box(*box.tolist()),
      image_id=dataset.train.image_id[image],
    )


def main() -> None:
  print(f"report: {write_report(cli.workdir(must_exist=True))}")


if __name__ == "__main__":
  cli.run(main)
