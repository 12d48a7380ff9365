"""Configs that were stored before some of the present keys were there."""

import copy
from typing import Any

# Keys that came after jprotop 0.2, and what that did.
_LATER = {
  "train.init.add_on": "fan_out",
  "train.init.prototypes": "uniform",
  "train.frozen.parts": 0,
  "train.frozen.batch_norm": False,
  "train.adversarial.num_steps": 1,
  "train.adversarial.weight": 1.0,
  "train.adversarial.joint_epochs": 0,
  "train.data.twins": False,
  "measure.robustness.num_images": 200,
  "measure.robustness.num_steps": 20,
  "measure.robustness.restarts": 1,
  "measure.robustness.targets": 3,
  "measure.robustness.queries": 200,
  "measure.transfer.num_images": 30,
  "measure.transfer.num_steps": 40,
  "measure.universal.num_images": 100,
  "measure.universal.num_training_images": 100,
  "measure.universal.num_classes": 2,
  "measure.universal.num_steps": 50,
  "measure.attack.strength": "paper",
  "measure.strong_attack.num_images": 30,
  "measure.strong_attack.top_k": 5,
  "measure.strong_attack.curve": "0.5,1,2,4",
  "measure.strong_attack.targets": "head to stomach,random rectangle",
  "measure.strong_attack.queries": 1000,
}
# Keys that came later, and those that they follow unless they are given.
_FOLLOWING = {
  "measure.robustness.eps": "train.adversarial.eps",
  "train.adversarial.copies": "train.data.copies",
}


def completed(config: dict) -> dict:
  """A stored config, with the keys that it lacks because they came later; else as it is."""
  config = copy.deepcopy(config)
  for key, value in _LATER.items():
    _set_default(config, key, value)
  for key, followed in _FOLLOWING.items():
    node = config
    for name in followed.split("."):
      node = node.get(name) if isinstance(node, dict) else None
    if node is not None:
      _set_default(config, key, node)
  return config


def _set_default(config: dict, key: str, value: Any) -> None:
  """Sets a key that is not there, where its sections are dictionaries."""
  *sections, name = key.split(".")
  node = config
  for section in sections:
    node = node.setdefault(section, {}) if isinstance(node, dict) else None
  if isinstance(node, dict):
    node.setdefault(name, value)
