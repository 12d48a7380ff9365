"""What a training has to do, as its bar counts it: frozen layers once, the rest each time."""

import dataclasses

import numpy as np
import pytest
from miniature import drawn_split

from jprotop.data.batches import EpochPlan, Epochs
from jprotop.runs import config as base
from jprotop.runs.config_later import completed
from jprotop.training import copies, fronts, phases, work


def make_config(network="standard", **changes):
  config = base.get_config(network)
  config.train.data.image_size = 16
  config.train.model.update({"backbone": "small_lite", "prototype_depth": 4})
  config.train.data.copies = 2
  config.update_from_flattened_dict(changes)
  return config.to_dict()


def plan_of(copies=2, versions=1):
  return EpochPlan(np.zeros(30, int), copies, 10, 0, num_versions=versions)


def costs(config):
  """Of each phase, by its name."""
  found = {}
  for phase in phases.phases_of(config):
    if phase.name != "push":
      found[phase.name] = work.cost_of(config, phase, plan_of())
  return found


def test_a_step_behind_frozen_layers_costs_what_lies_behind_them(small_family):
  assert work.share_behind(make_config()) == 1
  assert costs(make_config()) == {"warm": 1, "joint": 3, "last_layer": 1}
  frozen = make_config(**{"train.frozen.parts": 2})
  rest = work.share_behind(frozen)
  assert 0 < rest < 1
  assert work.share_behind(make_config(**{"train.frozen.parts": 1})) > rest
  wanted = {"warm": rest, "joint": 3 * rest, "last_layer": rest}
  assert costs(frozen) == pytest.approx(wanted)


def test_adversarial_images_go_through_the_whole_network(small_family):
  config = make_config("adversarial", **{"train.frozen.parts": 2})
  rest = work.share_behind(config)
  wanted = {"warm": 4, "joint": 4 + 2 * rest, "last_layer": 4}
  assert costs(config) == pytest.approx(wanted)
  several = {"train.adversarial.method": "pgd", "train.adversarial.num_steps": 5}
  assert costs(make_config("adversarial", **several))["warm"] == 16


def test_a_training_is_its_phases_the_push_and_what_is_stored(small_family):
  def left(network="standard", *, versions=1, **changes):
    config = make_config(network, **changes)
    return work.work_left(config, phases.phases_of(config), plan_of(versions=versions), 30)

  # 60 copies: 5 warm epochs, 6 joint ones of 3, the push, and the activations once.
  assert left() == 60 * (5 + 18 + 1) + 30
  frozen = {"train.frozen.parts": 2}
  rest = work.share_behind(make_config(**frozen))
  assert left(**frozen) == pytest.approx(60 * (1 - rest + 5 * rest + 18 * rest + rest) + 30)
  # Both versions are stored, and one of them is seen in an epoch.
  twice = 2 * (1 - rest) + 5 * rest + 18 * rest + 2 * rest
  assert left("remedied", versions=2, **frozen) == pytest.approx(60 * twice + 30)
  # The pretraining has the copies of all networks, the adversarial phases their own.
  changes = {"train.pretrain.epochs": 2, "train.adversarial.last_layer_epochs": 3}
  assert left("adversarial", **changes) == 60 * (2 * 3 + 5 * 4 + 6 * 6 + 3 * 4) + 30
  config = make_config("adversarial", **{"train.data.copies": 5, **changes})
  found = work.work_left(config, phases.phases_of(config), plan_of(copies=1), 30)
  assert found == 150 * 2 * 3 + 30 * (5 * 4 + 6 * 6 + 3 * 4) + 30


def test_what_is_done_is_not_left(small_family):
  config = make_config()
  plan = phases.phases_of(config)
  whole = work.work_left(config, plan, plan_of(), 30)
  assert work.work_left(config, plan, plan_of(), 30, epoch=2) == whole - 2 * 60
  assert work.work_left(config, plan[1:], plan_of(), 30) == whole - 5 * 60
  assert dataclasses.replace(plan_of(), copies=0).num_examples == 30


def test_the_adversarial_network_sees_as_many_copies_as_the_others_unless_told(monkeypatch):
  assert make_config(**{"train.data.copies": 7})["train"]["adversarial"]["copies"] == 7
  config = make_config("adversarial", **{"train.adversarial.copies": 1})
  split, nothing = drawn_split(3, size=16), fronts.StoredRenderer(np.zeros((1, 1, 1, 1, 1)), 1)

  def host_epochs(split, *, copies, batch_size, seed, **_):
    return Epochs(EpochPlan(split.label, copies, batch_size, seed), nothing)

  monkeypatch.setattr(copies, "host_epochs", host_epochs)
  assert copies.augmented(config, split).plan.copies == 1
  assert copies.augmented(config, split, pretraining=True).plan.copies == 2
  assert copies.augmented(make_config("standard"), split).plan.copies == 2
  # A run that was trained before there was the key.
  del config["train"]["adversarial"]["copies"]
  assert completed(config)["train"]["adversarial"]["copies"] == 2
