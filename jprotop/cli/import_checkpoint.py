r"""Make a ProtoPNet trained with PyTorch a jprotop run, or write a run back as a PyTorch file.

  jprotop import-checkpoint --torch_checkpoint=FILE.pth --workdir=RUN
  jprotop import-checkpoint --torch_checkpoint=FILE.pth --workdir=RUN \
    --config.data.dir=CUB_200_2011 --boxes=bb11.npy
  jprotop import-checkpoint --workdir=RUN --export_torch=FILE.pth

Neither needs PyTorch, and nothing that a file holds is run. The file is a state dict or a whole
module, of torch's present or older form. Backbone, add-on layers, and the number, depth and classes
of the prototypes are read from it. Without data, RUN takes image files: explain and head-on-stomach
with --images. With --config.data.dir (and --config.train.data.name=folder for images of your own,
also ProtoPNet's train_cropped/ and test_cropped/) it takes every command; where --boxes, the
bb*.npy of the training, does not say which patches the prototypes come from, the nearest ones are
searched for. --config=base:altered imports the network of the JPEG experiment.
"""

import pathlib

import numpy as np
from absl import flags

from jprotop.cli import flags as cli
from jprotop.data.arrays import read_array
from jprotop.errors import InputError
from jprotop.files import held, user_path
from jprotop.prototypes.similarity import SIMILARITIES
from jprotop.runs import processes
from jprotop.runs import run as runs
from jprotop.torch_io import export, names
from jprotop.training import importing


def define_flags() -> None:
  cli.define_workdir()
  cli.define_config(trains=False)
  flags.DEFINE_string("torch_checkpoint", None, "The file to import.")
  flags.DEFINE_string("export_torch", None, "File to write the run's state dict to.")
  flags.DEFINE_string("boxes", None, "The training's bb*.npy: where its prototypes come from.")
  flags.DEFINE_string(
    "prototype_class", None, "Class of each prototype, .npy int [P], where the file cannot tell."
  )
  flags.DEFINE_enum("similarity", None, sorted(SIMILARITIES), "Where the file cannot tell.")


def import_run(workdir: pathlib.Path, source: pathlib.Path) -> None:
  """Makes the run, and says what was read."""
  given = flags.FLAGS
  prototype_class = _path(given.prototype_class)
  imported = importing.import_checkpoint(
    source,
    workdir,
    cli.config(),
    boxes=_path(given.boxes),
    prototype_class=None if prototype_class is None else read_array(prototype_class),
    similarity=given.similarity,
  )
  model, _, info = runs.load(workdir)
  counts = np.bincount(model.prototype_class, minlength=model.num_classes)
  each = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
  size = info["config"]["train"]["data"]["image_size"]
  lines = {
    "file": f"{imported['file']} ({imported['form']}), sha256 {imported['sha256'][:16]}...",
    "network": f"{model.backbone}, {model.addon} add-on, {model.similarity} similarity",
    "prototypes": f"{len(model.prototype_class)} of depth {model.prototype_depth}",
    "classes": f"{model.num_classes}, with {each} prototypes each",
    "their classes": imported["classes_from"],
    "similarity": imported["similarity_from"],
    "their sources": imported["sources"],
    "image size": f"{size} pixels ({imported['image_size_from']})",
  }
  print(f"Imported into {workdir}:")
  for name, text in lines.items():
    print(f"  {name:<14} {text}")
  print(f"Next: jprotop explain --workdir={workdir} --images=FILE.jpg")


def _path(given: str | None) -> pathlib.Path | None:
  return user_path(given) if given else None


def export_run(workdir: pathlib.Path, target: pathlib.Path) -> None:
  """Writes the state dict; what it cannot hold is said."""
  model, variables, _ = runs.load(workdir)
  state = names.state_dict_of(model, variables)
  export.write_state_dict(target, state)
  print(f"{target}: {len(state)} entries of a {model.backbone} ProtoPNet")
  share = len(model.prototype_class) // model.num_classes
  if list(model.prototype_class) != np.repeat(np.arange(model.num_classes), share).tolist():
    print("  it does not hold which prototype is of which class; they are not an equal share each")
  if (model.similarity, model.distance) != ("log", "squared_l2"):
    print(f"  it does not hold that similarity is {model.similarity} of {model.distance}")


def main() -> None:
  given, workdir = flags.FLAGS, cli.workdir()
  if bool(given.torch_checkpoint) == bool(given.export_torch):
    raise InputError("give either --torch_checkpoint=FILE to read or --export_torch=FILE to write")
  useless = [name for name in ("boxes", "prototype_class", "similarity") if given[name].value]
  if given.export_torch and useless:
    raise InputError(f"--{useless[0]} is for an import; --export_torch takes a run as it is")
  if given.torch_checkpoint:
    with processes.kept_by_first(workdir) as kept, held(kept):
      import_run(workdir, user_path(given.torch_checkpoint))
  else:
    export_run(cli.workdir(must_exist=True), user_path(given.export_torch))
