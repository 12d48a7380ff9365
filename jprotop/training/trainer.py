"""A run between epochs, and what moves it on: the phases, the push, and what is kept of them."""

import logging
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jprotop import parallel
from jprotop.data import batches
from jprotop.data.dataset import Dataset, Split
from jprotop.networks.backbone import BackboneClassifier
from jprotop.prototypes import accuracy, push, selectors
from jprotop.prototypes.initial import random_patches
from jprotop.prototypes.protopnet import make_model
from jprotop.prototypes.see import Network, see
from jprotop.runs import results
from jprotop.runs import run as runs
from jprotop.runs.checkpoints import Checkpoints, check_trained
from jprotop.runs.config import trained_part
from jprotop.runs.history import History
from jprotop.runs.sealed import digest_of
from jprotop.training import copies, fronts, overfitting, passes, pretrained, state, steps
from jprotop.training.phases import Phase

_log = logging.getLogger("jprotop")


class Trainer:
  """A run, and what moves it on."""

  def __init__(
    self,
    config: dict,
    workdir: pathlib.Path,
    dataset: Dataset,
    seen: Dataset,
    plan: tuple[Phase, ...],
    checkpoints: Checkpoints,
    start: dict | None,
    siblings: Sequence[pathlib.Path] = (),
  ):
    self.config, self.workdir, self.plan = config, workdir, plan
    # The images as they are, and as this network sees them.
    self.dataset, self.seen = dataset, seen
    self.checkpoints, self.history = checkpoints, History(workdir)
    self.model = make_model(config["train"]["model"], len(dataset.class_names))
    self.classifier = BackboneClassifier(
      self.model.backbone, self.model.num_classes, self.model.options
    )
    self.epochs = copies.augmented(config, self.seen.train)
    # The same of what frozen layers make of the copies; None: not yet.
    self.stored: batches.Epochs | None = None
    latest = self.checkpoints.latest()
    self.state = self._begun(start, siblings) if latest is None else self._restored(latest)

  def _begun(self, start: dict | None, siblings: Sequence[pathlib.Path]) -> state.RunState:
    """The state of a new run; its history begins."""
    found, lines = state.begun(
      self.config,
      self.plan,
      (self.model, self.classifier),
      start=start,
      folders=[self.workdir, *siblings],
      identity=self.dataset.identity,
    )
    self.history.begin(lines)
    return found

  def _restored(self, step: int) -> state.RunState:
    """The state of a checkpoint; rows of history that came after it are dropped."""
    model, info = self.checkpoints.restore(step)
    check_trained(self.workdir, self.config, info)
    runs.dataset_of({**info, "config": self.config, "finished": True}, self.dataset)
    found = state.restored(model, info)
    if found.position.epoch:
      phase = self.plan[found.position.phase]
      trained = phase.part_of(found.params)
      optimizer = passes.optimizer_of(self.config, phase, self.epochs.plan)
      like = {"state": jax.eval_shape(optimizer.init, trained), "present": np.array(True)}
      found.opt_state = self.checkpoints.restore_optimizer(step, like)["state"]
    self.history.take_up(info["position"])
    _log.info("continuing %s after epoch %d", self.workdir, found.position.epochs_done)
    return found

  def run(self) -> None:
    """All phases that are left, with one progress bar over the work of them all."""
    position = self.state.position
    if position.phase == len(self.plan):
      _log.info("%s is trained already", self.workdir)
      # Killed between its last checkpoint and what comes after the loop, it has none.
      if "train" not in results.read_results(self.workdir).get("environment", {}):
        self._write_results()
      return
    if self.plan[0].name != "pretrain" and not self.config["train"]["init"]["backbone"]:
      _log.warning(
        "the backbone starts from random weights, and the warm phase keeps it so; "
        "--config.train.pretrain.epochs=N trains it as a plain classifier first, and "
        "--config.train.init.backbone=torchvision takes ImageNet weights"
      )
    if too_much := fronts.what_is_too_much(self.config, self.epochs.plan):
      _log.warning(too_much)
    with tqdm(total=self._work(0, 0), unit="pass", dynamic_ncols=True, smoothing=0.05) as bar:
      bar.bar_format = "{desc} |{bar}| {percentage:3.0f}% [{elapsed} < {remaining}]"
      bar.update(self._work(0, 0) - self._work(position.phase, position.epoch))
      for index in range(position.phase, len(self.plan)):
        self._start_prototypes(index)
        if self.plan[index].name == "push":
          self._push(bar)
          self._finish_epoch(index)
        else:
          self._run_phase(index, bar)
    self._write_results()

  def _write_results(self) -> None:
    results.update_results(self.workdir, self.config, "train", {}, data=self.dataset.identity)

  def _work(self, phase: int, epoch: int) -> int:
    """What is left from a position on, in forward passes of images."""
    left = 0
    if any(fronts.is_stored(self.config, ahead, self.epochs.plan) for ahead in self.plan[phase:]):
      left += self.epochs.plan.num_examples * self.epochs.plan.num_versions
    for number, ahead in enumerate(self.plan[phase:]):
      if ahead.name == "push":
        left += len(self.dataset.train)
      else:
        done = epoch if number == 0 else 0
        left += passes.work_of(self.config, ahead, self.epochs.plan, done)
    return left

  def _run_phase(self, index: int, bar: tqdm) -> None:
    phase, now = self.plan[index], self.state
    if now.opt_state is None:
      optimizer = passes.optimizer_of(self.config, phase, self.epochs.plan)
      now.opt_state = optimizer.init(phase.part_of(now.params))
    network, epochs = self.model, self._epochs_of(phase, bar)
    if phase.name == "pretrain":
      network = self.classifier
      epochs = copies.augmented(self.config, self.seen.train, pretraining=True)
    first = now.position.epochs_done - now.position.epoch
    one_pass = passes.passes_of(
      self.config, network, phase, epochs, variables=self.state.variables, bar=bar, first=first
    )
    for epoch in range(now.position.epoch, phase.epochs):
      bar.set_description(f"{phase.name} {epoch + 1}/{phase.epochs}")
      before = steps.TrainState(now.params, now.batch_stats, now.opt_state)
      after, totals = one_pass(before, epoch)
      now.params, now.batch_stats, now.opt_state = after.params, after.batch_stats, after.opt_state
      count = totals.pop("count")
      row = {**{key: value / count for key, value in totals.items()}, "count": int(count)}
      self._record(phase=phase.name, split="train", **row)
      self._validate(phase)
      self._finish_epoch(index)
    now.opt_state = None

  def _start_prototypes(self, index: int) -> None:
    """Before the first phase of the ProtoPNet, where they do not stay as they were drawn."""
    begins = index == (self.plan[0].name == "pretrain") and not self.state.position.epoch
    if begins and self.config["train"]["init"]["prototypes"] == "patches":
      patches = random_patches(
        Network(self.model, self.state.variables),
        self.seen.train,
        seed=self.config["train"]["seed"],
        batch_size=self.config["compute"]["evaluation_batch_size"],
      )
      self.state.params = {**self.state.params, "prototypes": jnp.asarray(patches)}

  def _epochs_of(self, phase: Phase, bar: tqdm) -> batches.Epochs:
    """A phase's, which begin behind the frozen layers where their outputs are stored."""
    if not fronts.is_stored(self.config, phase, self.epochs.plan):
      return self.epochs
    if self.stored is None:
      bar.set_description("frozen layers, all copies")
      self.stored = fronts.store(self.model, self.state.variables, phase, self.epochs, bar)
    return self.stored

  def _record(self, **row) -> None:
    self.history.add(epoch=self.state.position.epochs_done, **row)

  def _validate(self, phase: Phase) -> None:
    """Validation accuracy; in the last-layer phase the best epoch's weights are kept aside."""
    if not len(self.seen.validation):
      return
    result = self._accuracy(self.seen.validation, classifier=phase.name == "pretrain")
    eps = self.config["train"]["adversarial"]["eps"]
    if steps.is_adversarial(self.config, phase) and eps:
      result |= self._under_attack(phase, eps)
    self._record(phase=phase.name, split="validation", **result)
    position = self.state.position
    if phase.name == "last_layer" and result["accuracy"] > position.best_accuracy:
      position.best_accuracy = result["accuracy"]
      self.state.best_last_layer = np.asarray(self.state.params["last_layer"])

  def _under_attack(self, phase: Phase, eps: float) -> dict:
    """Accuracies under FGSM and PGD, with a warning where they part."""
    train = self.config["train"]
    found = overfitting.check(
      Network(self.model, self.state.variables),
      self.seen.validation,
      eps=eps,
      seed=train["seed"],
      batch_size=train["batch_size"],
    )
    overfitting.warn(found, phase.name, eps)
    return found

  def _accuracy(self, split: Split, *, classifier: bool = False) -> dict:
    network, variables = self.model, self.state.variables
    if classifier:
      network, variables = self.classifier, self.state.classifier_variables
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
      self.model, self.state.variables, crops(), image_size=train_set.image_size, batch_size=size
    )
    self.state.params = {**self.state.params, **variables["params"]}
    self.state.provenance = provenance
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

  def _finish_epoch(self, index: int) -> None:
    """Moves the position on and saves; at a phase's end its optimiser is let go."""
    position, phase = self.state.position, self.plan[index]
    position.epochs_done += 1
    position.epoch += 1
    if phase.name == "push" or position.epoch == phase.epochs:
      position.phase, position.epoch = index + 1, 0
      self._end_phase(phase)
    position.history_rows = len(self.history.lines)
    position.history_digest = digest_of(self.history.lines)
    self.state.save(
      self.checkpoints,
      class_names=self.dataset.class_names,
      data=self.dataset.identity,
      finished=position.phase == len(self.plan),
      trained=trained_part(self.config),
    )

  def _end_phase(self, phase: Phase) -> None:
    now = self.state
    now.opt_state = None
    if phase.name == "pretrain":
      now.params = now.variables["params"]
      backbone = {"params": {"features": now.params["features"]}, "batch_stats": now.batch_stats}
      name = pretrained.fingerprint(self.config, self.dataset.identity)
      pretrained.save(self.workdir, name, backbone, self.history.lines)
    if phase.name == "last_layer" and now.best_last_layer is not None:
      now.params = {**now.params, "last_layer": jnp.asarray(now.best_last_layer)}
