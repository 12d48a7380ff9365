"""One training step: devices, padding, what each phase trains, and Adam as PyTorch has it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from single_device import one_device

from jprotop import parallel
from jprotop.errors import InputError
from jprotop.networks.backbone import BackboneClassifier
from jprotop.runs import config as base
from jprotop.training import phases, steps

TRAINING = base.get_config().train.to_dict()


def plan(protocol="paper", **changes):
  """The phases of the default config, by name."""
  training = {**TRAINING, "pretrain": {**TRAINING["pretrain"], "epochs": 2}, **changes}
  return {phase.name: phase for phase in phases.make_phases(training, protocol)}


def batch_of(count, seed=0):
  rng = np.random.default_rng(seed)
  image = rng.random((count, 32, 32, 3)).astype(np.float32)
  return {"image": image, "label": rng.integers(0, 3, count).astype(np.int32)}


def trained(model, variables, phase, batch, *, rows, num_steps=1, protocol="paper"):
  """States and metrics after each of some steps on the same batch, padded to `rows`."""
  optimizer = phases.make_optimizer(phase, 10, TRAINING["weight_decay"])
  axis = parallel.AXIS if protocol == "paper" else None
  network = steps.with_axis(model, axis)
  if isinstance(model, BackboneClassifier):
    loss = steps.classifier_losses(network)
  else:
    loss = steps.protopnet_losses(network, steps.LossWeights(cap_at_depth=protocol == "authors"))
  params, stats = variables["params"], variables["batch_stats"]
  state = steps.TrainState(params, stats, optimizer.init({g: params[g] for g in phase.trained}))
  state = parallel.replicate(jax.tree.map(jnp.copy, state))
  step = steps.make_train_step(loss, phase, optimizer)
  states, history = [], []
  for _ in range(num_steps):
    state, metrics = step(state, parallel.place(batch, rows))
    states.append(jax.device_get(state))
    history.append(jax.device_get(metrics))
  return states, history


def changed(before, after):
  """Names of the top-level groups in which some array differs."""
  return {
    group
    for group in before
    if not jax.tree.all(jax.tree.map(np.array_equal, before[group], after[group]))
  }


# --- devices and padding


@pytest.fixture(scope="module")
def joint(tiny):
  """Twenty joint steps on five images: three on the first device, two and padding on the second."""
  return trained(*tiny, plan()["joint"], batch_of(5), rows=6, num_steps=20)


def test_two_devices_and_padding_give_the_step_of_one(tiny, joint):
  (state, *_), (metrics, *_) = joint
  with one_device():
    (wanted,), (wanted_metrics,) = trained(*tiny, plan()["joint"], batch_of(5), rows=5)
  assert metrics["count"] == wanted_metrics["count"] == 5
  for name, value in wanted_metrics.items():
    assert metrics[name] == pytest.approx(float(value), rel=1e-4), name
  compare = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  jax.tree.map(compare, state.batch_stats, wanted.batch_stats)
  # Adam's first step moves a weight by its rate, whichever sign rounding gives a gradient of 0.
  for group, rate in plan()["joint"].learning_rate:
    pairs = zip(jax.tree.leaves(state.params[group]), jax.tree.leaves(wanted.params[group]))
    differences = np.concatenate([np.abs(a - b).ravel() for a, b in pairs])
    assert differences.max() <= 2.001 * rate, group
    assert np.mean(differences > 0.01 * rate) < 0.01, group
  # Before Adam's normalisation the two agree outright: its first moment is a tenth of the gradient.
  compare = functools.partial(np.testing.assert_allclose, rtol=1e-2, atol=1e-5)
  moments = (jax.tree.leaves(s.opt_state) for s in (state, wanted))
  jax.tree.map(compare, *(list(m) for m in moments))


def test_a_device_with_padding_alone_has_no_say_in_the_statistics_of_authors(tiny):
  """Two images on the first device; batch norm is not synchronised here."""
  model, variables = tiny
  phase = plan("authors")["warm"]
  run = functools.partial(trained, model, variables, phase, batch_of(2), protocol="authors")
  (state,), _ = run(rows=4)
  with one_device():
    (wanted,), _ = run(rows=2)
  compare = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  jax.tree.map(compare, state.batch_stats, wanted.batch_stats)


def test_the_loss_is_the_weighted_sum_of_its_parts(tiny):
  model, variables = tiny
  _, (metrics,) = trained(model, variables, plan()["last_layer"], batch_of(4), rows=4)
  parts = metrics["cross_entropy"] + 0.8 * metrics["cluster_cost"]
  parts -= 0.08 * metrics["separation_cost"]
  parts += 4 * 1e-4 * 0.5 * 12  # four images; 6 prototypes x 2 other classes at -0.5
  assert metrics["loss"] == pytest.approx(float(parts), rel=1e-5)


# --- phases


@pytest.mark.parametrize(
  ("name", "protocol", "groups", "statistics"),
  [
    ("warm", "paper", {"add_on", "prototypes"}, False),
    ("warm", "authors", {"add_on", "prototypes"}, True),
    ("last_layer", "paper", {"last_layer"}, False),
    ("last_layer", "authors", {"last_layer"}, True),
  ],
)
def test_a_phase_trains_its_groups_only(tiny, name, protocol, groups, statistics):
  model, variables = tiny
  phase = plan(protocol)[name]
  (state,), _ = trained(model, variables, phase, batch_of(4), rows=4, protocol=protocol)
  assert changed(variables["params"], state.params) == groups
  assert bool(changed(variables["batch_stats"], state.batch_stats)) == statistics


def test_the_plain_classifier_trains_the_backbone_and_its_head(tiny):
  model, variables = tiny
  classifier = BackboneClassifier(model.backbone, model.num_classes)
  head = {"kernel": jnp.zeros((32, 3)), "bias": jnp.zeros(3)}
  variables = {**variables, "params": {**variables["params"], "classifier": head}}
  phase = plan()["pretrain"]
  states, metrics = trained(classifier, variables, phase, batch_of(6), rows=6, num_steps=20)
  assert changed(variables["params"], states[-1].params) == {"features", "classifier"}
  assert metrics[0]["loss"] == pytest.approx(6 * np.log(3), rel=1e-5)  # no idea at the start
  assert metrics[-1]["loss"] < 0.95 * metrics[0]["loss"]


def test_joint_steps_lower_the_loss_and_move_the_statistics(tiny, joint):
  _, variables = tiny
  states, metrics = joint
  assert metrics[-1]["loss"] < 0.8 * metrics[0]["loss"]
  assert changed(variables["params"], states[-1].params) == {"features", "add_on", "prototypes"}
  assert changed(variables["batch_stats"], states[-1].batch_stats)


def test_the_order_of_phases_and_their_rates_are_the_papers():
  found = phases.make_phases(TRAINING, "paper")
  assert [(p.name, p.epochs) for p in found] == [
    ("warm", 5),
    ("joint", 6),
    ("push", 1),
    ("last_layer", 20),
  ]
  rates = {p.name: dict(p.learning_rate) for p in found}
  assert rates["warm"] == {"add_on": 3e-3, "prototypes": 3e-3}
  assert rates["joint"] == {"features": 1e-4, "add_on": 3e-3, "prototypes": 3e-3}
  assert rates["last_layer"] == {"last_layer": 1e-4}


@pytest.mark.parametrize(
  ("protocol", "changes", "message"),
  [
    ("theirs", {}, "protocol='theirs' is not known; .*paper.*authors"),
    ("paper", {"warm": {**TRAINING["warm"], "epochs": -1}}, r"train\.warm\.epochs=-1"),
    ("paper", {"joint": {**TRAINING["joint"], "schedule": "linear"}}, "constant.*step.*cosine"),
  ],
)
def test_plans_that_make_no_sense_are_refused(protocol, changes, message):
  with pytest.raises(InputError, match=message):
    plan(protocol, **changes)


# --- Adam


def optimised(phase, gradients, params, *, steps_per_epoch=10, weight_decay=1e-3):
  """The parameters after each of a list of gradients, [steps] trees."""
  optimizer = phases.make_optimizer(phase, steps_per_epoch, weight_decay)
  params = {group: jnp.asarray(value, jnp.float32) for group, value in params.items()}
  state, history = optimizer.init(params), []
  update = jax.jit(optimizer.update)
  for gradient in gradients:
    updates, state = update(
      {g: jnp.asarray(v, jnp.float32) for g, v in gradient.items()}, state, params
    )
    params = {g: params[g] + updates[g] for g in params}
    history.append(jax.device_get(params))
  return history


def test_adam_couples_its_decay_into_the_gradient_of_backbone_and_add_on_only():
  phase, rng = plan()["joint"], np.random.default_rng(0)
  params = {group: 3 * rng.normal(size=4) for group in phase.trained}
  gradients = [{g: 1e-2 * rng.normal(size=4) for g in params} for _ in range(12)]
  found = optimised(phase, gradients, params, steps_per_epoch=1000)
  for group, rate in phase.learning_rate:
    decay = {"features": 1e-3, "add_on": 1e-3, "prototypes": 0.0}[group]
    x, m, v = params[group], np.zeros(4), np.zeros(4)
    for t, gradient in enumerate(gradients, start=1):  # torch.optim.Adam
      g = gradient[group] + decay * x
      m = 0.9 * m + 0.1 * g
      v = 0.999 * v + 0.001 * g**2
      x = x - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
      np.testing.assert_allclose(found[t - 1][group] - params[group], x - params[group], atol=2e-6)


def test_joint_runs_four_epochs_at_the_full_rate_and_two_at_a_tenth():
  """Epochs 5 to 8 and 9 to 10 of the run. A constant gradient makes Adam step by the rate."""
  phase, per_epoch = plan()["joint"], 3
  params = {group: np.zeros(1) for group in phase.trained}
  gradients = [{g: np.ones(1) for g in params}] * (6 * per_epoch)
  found = optimised(phase, gradients, params, steps_per_epoch=per_epoch, weight_decay=0.0)
  for group, rate in phase.learning_rate:
    path = np.array([0.0, *(row[group][0] for row in found)])
    factors = (-np.diff(path) / rate).reshape(6, per_epoch)
    wanted = np.repeat([1.0, 0.1], [4, 2])[:, None].repeat(per_epoch, 1)
    np.testing.assert_allclose(factors, wanted, rtol=1e-3)


def test_warm_and_last_layer_keep_their_rate_and_cosine_ends_at_nothing():
  def sizes(phase, count):
    gradients = [{g: np.ones(1) for g in phase.trained}] * count
    params = {g: np.zeros(1) for g in phase.trained}
    found = optimised(phase, gradients, params, steps_per_epoch=2, weight_decay=0.0)
    group, rate = phase.learning_rate[0]
    return -np.diff([0.0, *(row[group][0] for row in found)]) / rate

  np.testing.assert_allclose(sizes(plan()["warm"], 10), 1, rtol=1e-3)
  np.testing.assert_allclose(sizes(plan()["last_layer"], 40), 1, rtol=1e-3)
  cosine = sizes(plan()["pretrain"], 5)  # two epochs of two steps, and one beyond
  np.testing.assert_allclose(cosine, (1 + np.cos(np.pi * np.arange(5) / 4)) / 2, atol=2e-3)
