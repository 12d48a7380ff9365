"""A whole run: (pretrain ->) warm -> joint -> push -> last layer, resumable after every epoch."""

import contextlib
import dataclasses
import functools
import json
import logging
import pathlib
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jprotop import parallel
from jprotop.data import batches
from jprotop.data.dataset import Dataset, Split
from jprotop.errors import InputError
from jprotop.files import atomic_path
from jprotop.networks.backbone import BackboneClassifier
from jprotop.prototypes import accuracy, push, selectors
from jprotop.prototypes.protopnet import make_model
from jprotop.prototypes.see import Network, see
from jprotop.runs import processes, results
from jprotop.runs import run as runs
from jprotop.runs.checkpoints import Checkpoints, Position, claim_workdir
from jprotop.runs.config import check_config, trained_part
from jprotop.torch_io import backbones
from jprotop.training import last_layer, pretrained, steps
from jprotop.training import phases as phases_lib

_log = logging.getLogger("jprotop")


def train(
  config: dict,
  workdir: str | pathlib.Path,
  *,
  dataset: Dataset | None = None,
  siblings: Sequence[pathlib.Path] = (),
) -> Dataset:
  """Trains the run of a config in a workdir, or continues it; returns its data set.

  Writes config.json, history.jsonl (a row an epoch), checkpoints/ and, where the backbone is
  pretrained, pretrained.npz. After every epoch the state is saved; a killed run continues from
  there to the same result, on as many devices as there are then. Of several processes the first
  writes all this, and what it reads or draws at random is what the others start from.

  Args:
    config: plain values of a config file.
    workdir: the run's folder.
    dataset: the config's data set, if it is open already.
    siblings: folders of runs that may have done the same pretraining; it is then not repeated.
  """
  workdir = pathlib.Path(workdir)
  config = check_config(config)
  plan = phases_lib.phases_of(config)
  # First, because it may have to be downloaded, or not fit.
  start = processes.from_first(lambda: _start(workdir, config))
  dataset = dataset or runs.open_dataset(config)
  _check_same_everywhere(config, dataset)
  # Before the workdir is claimed, because the data may not fit the config.
  seen = runs.as_trained(config, dataset)
  keep = config["compute"]["keep_checkpoints"]
  with (
    claim_workdir(workdir, config) as folder,
    contextlib.closing(Checkpoints(workdir, keep=keep)) as checkpoints,
  ):
    Trainer(config, folder, dataset, seen, plan, checkpoints, start, siblings).run()
  return dataset


def _check_same_everywhere(config: dict, dataset: Dataset) -> None:
  """InputError where another process than the first was given something else."""
  given = (trained_part(config), dataset.identity)
  if processes.from_first(lambda: given) != given:
    raise InputError(
      "this process was given another config or other images than the first one; give all of them "
      "the same command, and the same data"
    )


def _start(workdir: pathlib.Path, config: dict) -> dict | None:
  """Variables of the backbone from the config's file; None: random weights, or the run's own.

  From its first epoch on a run has its own; before that its folder of checkpoints is empty.
  """
  begun = any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*"))
  file = None if begun else runs.backbone_file(config)
  return file and backbones.load(file, config["train"]["model"]["backbone"])


# Over 300 lines: a run's state and all that moves it on share its fields.
class Trainer:
  """The state of a run between epochs, and what moves it on."""

  def __init__(
    self,
    config: dict,
    workdir: pathlib.Path,
    dataset: Dataset,
    seen: Dataset,
    plan: tuple[phases_lib.Phase, ...],
    checkpoints: Checkpoints,
    start: dict | None,
    siblings: Sequence[pathlib.Path] = (),
  ):
    self.config, self.workdir, self.plan = config, workdir, plan
    # The images as they are, and as this network sees them.
    self.dataset, self.seen = dataset, seen
    self.checkpoints = checkpoints
    self.model = make_model(config["train"]["model"], len(dataset.class_names))
    self.classifier = BackboneClassifier(
      self.model.backbone, self.model.num_classes, self.model.options
    )
    self.epochs = runs.augmented_epochs(config, self.seen.train)
    self.position = Position()
    self.provenance: dict[str, np.ndarray] = {}
    self.best_last_layer: np.ndarray | None = None
    self.opt_state = None
    latest = self.checkpoints.latest()
    if latest is None:
      self.params, self.batch_stats = processes.from_first(lambda: self._initial_variables(start))
      self._take_pretrained(siblings)
    else:
      self._restore(latest)
      self._cut_history()

  @property
  def variables(self) -> dict:
    """The ProtoPNet's variables, without the pretraining head."""
    params = {group: self.params[group] for group in self.params if group != "classifier"}
    return {"params": params, "batch_stats": self.batch_stats}

  def run(self) -> None:
    """All phases that are left, with one progress bar over the work of them all."""
    if self.position.phase == len(self.plan):
      _log.info("%s is trained already", self.workdir)
      return
    if self.plan[0].name != "pretrain" and not self.config["train"]["init"]["backbone"]:
      _log.warning(
        "the backbone starts from random weights, and the warm phase keeps it so; "
        "--config.train.pretrain.epochs=N trains it as a plain classifier first, and "
        "--config.train.init.backbone=torchvision takes ImageNet weights"
      )
    with tqdm(total=self._work(0, 0), unit="pass", dynamic_ncols=True, smoothing=0.05) as bar:
      bar.bar_format = "{desc} |{bar}| {percentage:3.0f}% [{elapsed} < {remaining}]"
      bar.update(self._work(0, 0) - self._work(self.position.phase, self.position.epoch))
      for index in range(self.position.phase, len(self.plan)):
        if self.plan[index].name == "push":
          self._push(bar)
          self._finish_epoch(index)
        else:
          self._run_phase(index, bar)
    results.update_results(self.workdir, self.config, "train", {}, data=self.dataset.identity)

  def _work(self, phase: int, epoch: int) -> int:
    """What is left from a position on, in forward passes of images."""
    left = 0
    for number, ahead in enumerate(self.plan[phase:]):
      if ahead.name == "push":
        left += len(self.dataset.train)
      elif last_layer.is_stored(self.config, ahead):
        left += self.epochs.num_examples * self.epochs.num_versions
      else:
        epochs = ahead.epochs - (epoch if number == 0 else 0)
        left += epochs * self._passes(ahead) * self.epochs.num_examples
    return left

  def _run_phase(self, index: int, bar: tqdm) -> None:
    phase = self.plan[index]
    optimizer = self._optimizer(phase)
    if self.opt_state is None:
      self.opt_state = optimizer.init({group: self.params[group] for group in phase.trained})
    network, epochs = self.model, self.epochs
    if phase.name == "pretrain":
      network = self.classifier
      epochs = runs.augmented_epochs(self.config, self.seen.train, pretraining=True)
    if last_layer.is_stored(self.config, phase):
      bar.set_description("activations of all copies")
      stored = last_layer.store(self.model, self.variables, epochs, bar)
      train = functools.partial(self._tune_epoch, stored)
    else:
      step = steps.step_of(self.config, network, phase, self.epochs.num_batches)
      crops = parallel.replicate(epochs.crops())
      train = functools.partial(self._train_epoch, step, epochs, crops, bar)
    for epoch in range(self.position.epoch, phase.epochs):
      bar.set_description(f"{phase.name} {epoch + 1}/{phase.epochs}")
      totals = train(phase, epoch)
      count = totals.pop("count")
      row = {**{key: value / count for key, value in totals.items()}, "count": int(count)}
      self._record(phase=phase.name, split="train", **row)
      self._validate(phase)
      self._finish_epoch(index)
    self.opt_state = None

  def _optimizer(self, phase: phases_lib.Phase):
    training = self.config["train"]
    return phases_lib.make_optimizer(phase, self.epochs.num_batches, training["weight_decay"])

  def _passes(self, phase: phases_lib.Phase) -> int:
    """Cost of one image in forward passes; finding an adversarial one costs three more."""
    return phase.passes + 3 * steps.is_adversarial(self.config, phase)

  def _tune_epoch(self, stored: last_layer.Stored, phase: phases_lib.Phase, epoch: int) -> dict:
    """One pass of the last layer over stored activations; sums of its metrics."""
    state = ({"last_layer": jnp.asarray(self.params["last_layer"])}, self.opt_state)
    weights, number = steps.loss_weights(self.config), self.position.epochs_done
    # One device does it, and all processes must have the same.
    (trained, self.opt_state), totals = processes.from_first(
      lambda: last_layer.one_pass(
        self.model, stored, self.epochs, number, state, phase=phase, weights=weights
      )
    )
    self._check_finite((totals, trained), phase, epoch)
    self.params = {**self.params, **trained}
    return totals

  def _train_epoch(
    self,
    step,
    epochs: batches.AugmentedEpochs,
    crops,
    bar: tqdm,
    phase: phases_lib.Phase,
    epoch: int,
  ) -> dict:
    """One pass over the augmented set; sums of its metrics."""
    state = parallel.replicate(steps.TrainState(self.params, self.batch_stats, self.opt_state))
    totals = None
    size = self.config["train"]["batch_size"]
    for number, batch in enumerate(epochs.epoch(self.position.epochs_done)):
      count = len(batch["label"])
      state, metrics = step(state, parallel.place(batch, size), crops)
      totals = metrics if totals is None else jax.tree.map(jnp.add, totals, metrics)
      bar.update(count * self._passes(phase))
      if number % 20 == 0:
        self._check_finite(metrics["loss"], phase, epoch)
    # The parameters too: the last step's loss was taken before its update.
    self._check_finite((totals, state.params, state.batch_stats), phase, epoch)
    self.params, self.batch_stats, self.opt_state = state.params, state.batch_stats, state.opt_state
    return {key: float(value) for key, value in totals.items()}

  def _check_finite(self, tree, phase: phases_lib.Phase, epoch: int) -> None:
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)):
      raise InputError(
        f"the loss or the network is no longer finite in phase {phase.name}, epoch {epoch + 1}; "
        f"the checkpoint before it is kept. Lower train.{phase.name}.learning_rate, in another "
        "--workdir"
      )

  def _validate(self, phase: phases_lib.Phase) -> None:
    """Validation accuracy; in the last-layer phase the best epoch's weights are kept aside."""
    if not len(self.seen.validation):
      return
    result = self._accuracy(self.seen.validation, classifier=phase.name == "pretrain")
    self._record(phase=phase.name, split="validation", **result)
    if phase.name == "last_layer" and result["accuracy"] > self.position.best_accuracy:
      self.position.best_accuracy = result["accuracy"]
      self.best_last_layer = np.asarray(self.params["last_layer"])

  def _accuracy(self, split: Split, *, classifier: bool = False) -> dict:
    network, variables = self.model, self.variables
    if classifier:
      params = {group: self.params[group] for group in ("features", "classifier")}
      network, variables = self.classifier, {"params": params, "batch_stats": self.batch_stats}
    size = self.config["compute"]["evaluation_batch_size"]
    scores = see(Network(network, variables), split, selectors.logits, batch_size=size)
    share = accuracy.accuracy(scores, split.label)
    return {"accuracy": share["value"], "correct": share["count"], "count": share["total"]}

  def _push(self, bar: tqdm) -> None:
    bar.set_description("push")
    # Unlike in training, the size of a batch has no say in the result: devices round it up.
    size = parallel.round_up(self.config["compute"]["push_batch_size"])
    train_set = self.seen.train
    # The test set is only measured here; nothing is chosen by it.
    measured = [s for s in (self.seen.validation, self.seen.test) if len(s)]
    before = {split.name: self._accuracy(split) for split in measured}

    def crops():
      for batch in batches.in_order(train_set, size):
        yield batch
        bar.update(len(batch["label"]))

    variables, provenance = push.push(
      self.model, self.variables, crops(), image_size=train_set.image_size, batch_size=size
    )
    self.params = {**self.params, **variables["params"]}
    self.provenance = provenance.as_arrays()
    self._record(
      phase="push",
      num_prototypes=len(provenance.image),
      distinct=provenance.num_distinct,
      mean_sq_dist=float(provenance.sq_dist.mean()),
    )
    for split in measured:
      after = self._accuracy(split)
      self._record(
        phase="push", split=split.name, correct_before=before[split.name]["correct"], **after
      )

  def _record(self, **row) -> None:
    row = {"phase": row.pop("phase"), "epoch": self.position.epochs_done, **row}
    with open(self.workdir / "history.jsonl", "a") as file:
      file.write(json.dumps(row) + "\n")
    self.position.history_rows += 1
    shown = ", ".join(
      f"{key} {value:.4g}" for key, value in row.items() if key not in ("phase", "split", "epoch")
    )
    tqdm.write(
      f"  {row['phase']:<10} epoch {row['epoch'] + 1:<3} {row.get('split', ''):<10} {shown}"
    )

  def _finish_epoch(self, index: int) -> None:
    """Moves the position on and saves; at a phase's end its optimiser is let go."""
    position, phase = self.position, self.plan[index]
    position.epochs_done += 1
    position.epoch += 1
    if phase.name == "push" or position.epoch == phase.epochs:
      position.phase, position.epoch = index + 1, 0
      self._end_phase(phase)
    model = {"params": self.params, "batch_stats": self.batch_stats}
    if self.provenance:
      model["provenance"] = self.provenance
    if self.best_last_layer is not None:
      model["best_last_layer"] = self.best_last_layer
    info = {
      "position": dataclasses.asdict(position),
      "class_names": self.dataset.class_names,
      "data": self.dataset.identity,
      "finished": position.phase == len(self.plan),
    }
    optimizer = {} if self.opt_state is None else {"state": self.opt_state}
    optimizer["present"] = np.array(self.opt_state is not None)
    self.checkpoints.save(position.epochs_done, model=model, optimizer=optimizer, info=info)

  def _end_phase(self, phase: phases_lib.Phase) -> None:
    self.opt_state = None
    if phase.name == "pretrain":
      self.params = {g: value for g, value in self.params.items() if g != "classifier"}
      lines = (self.workdir / "history.jsonl").read_text().splitlines()
      backbone = {"params": {"features": self.params["features"]}, "batch_stats": self.batch_stats}
      pretrained.save(self.workdir, self._pretraining(), backbone, lines)
    if phase.name == "last_layer" and self.best_last_layer is not None:
      self.params = {**self.params, "last_layer": jnp.asarray(self.best_last_layer)}

  def _initial_variables(self, start: dict | None) -> tuple[dict, dict]:
    """Parameters and batch statistics, drawn from the seed or, the backbone's, from a file."""
    key = jax.random.key(self.config["train"]["seed"])
    size = self.config["train"]["data"]["image_size"]
    variables = _initialiser(self.model, size)(jax.random.fold_in(key, 0))
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    if self.plan[0].name == "pretrain":
      head = _initialiser(self.classifier, size)(jax.random.fold_in(key, 1))
      params = {**params, "classifier": head["params"]["classifier"]}
    if start is not None:
      params = {**params, "features": start["params"]["features"]}
      batch_stats = {**batch_stats, **start["batch_stats"]}
    return params, batch_stats

  def _pretraining(self) -> str:
    return pretrained.fingerprint(self.config, self.dataset.identity)

  def _take_pretrained(self, siblings: Sequence[pathlib.Path]) -> None:
    """Starts after the pretraining, if another run of the study has done the same one."""
    history: list[str] = []
    found = None
    if self.plan[0].name == "pretrain":
      folders = [self.workdir, *siblings]
      found = processes.from_first(lambda: pretrained.find(folders, self._pretraining()))
    if found is not None:
      variables, history = found
      self.params = {g: value for g, value in self.params.items() if g != "classifier"}
      self.params["features"] = variables["params"]["features"]
      self.batch_stats = variables.get("batch_stats", {})
      epochs = self.plan[0].epochs
      self.position = Position(phase=1, epochs_done=epochs, history_rows=len(history))
      _log.info("%s starts from a backbone that is pretrained already", self.workdir)
    with atomic_path(self.workdir / "history.jsonl") as temporary:
      temporary.write_text("".join(f"{line}\n" for line in history))

  def _restore(self, step: int) -> None:
    """Takes up the state of a checkpoint."""
    model, info = self.checkpoints.restore(step)
    runs.dataset_of({**info, "config": self.config, "finished": True}, self.dataset)
    self.position = Position(**info["position"])
    self.params, self.batch_stats = model["params"], model["batch_stats"]
    self.provenance = model.get("provenance", {})
    self.best_last_layer = model.get("best_last_layer")
    if self.position.epoch:
      phase = self.plan[self.position.phase]
      trained = {group: self.params[group] for group in phase.trained}
      like = {
        "state": jax.eval_shape(self._optimizer(phase).init, trained),
        "present": np.array(True),
      }
      self.opt_state = self.checkpoints.restore_optimizer(step, like)["state"]
    _log.info("continuing %s after epoch %d", self.workdir, self.position.epochs_done)

  def _cut_history(self) -> None:
    """Drops rows of an epoch that was not saved."""
    history = self.workdir / "history.jsonl"
    if history.exists():
      rows = history.read_text().splitlines(keepends=True)[: self.position.history_rows]
      with atomic_path(history) as temporary:
        temporary.write_text("".join(rows))


@functools.lru_cache(maxsize=8)
def _initialiser(model: nn.Module, size: int):
  """From a random key to a network's variables, compiled once for all networks of a study."""
  return jax.jit(lambda key: model.init(key, jnp.zeros((1, size, size, 3))))
