"""The strongest attack on explanations: how many prototypes move when an attacker really tries.

  jprotop strong-attack --workdir=runs/demo/standard
  jprotop strong-attack --workdir=RUN --attack=strong --queries=5000
  jprotop strong-attack --workdir=RUN --out=OUT --num_images=100 --curve=1,2,4 --targets=

The paper's attack is one: 40 signed steps of one size from one start, and its last picture. A
network that it does not move may be robust, or the attack may be weak. This one takes APGD (Croce
and Hein 2020) from several starts, with Eq. (2) and with the margin of the success test, and of all
pictures the best by that test. --attack=strong-small has 2 starts of 50 steps, and noise on
S_noisy; --attack=strong 5 of 100, and noise on S_noisy, on S and S_noisy, and on the whole image:
three threat models. Images are those of success-rate, as many as are asked for. The paper's attack
and random noise with as many pictures to choose from are measured on the same images.

It says how long it may take first. Figures, results.json, strong_attack.csv, a line for each image,
target and mask, and strong_attack.npz go to --out, by default the run's folder. strong_attack.npz
holds, for each of N images that can be attacked: attacked [N, S, S, 3], the picture that moved the
top prototype off S with the smallest eps, with the class kept where that was found; prototype and
image_id [N]; source [N, h, w], the cells S; and eps [N], NaN where it did not move.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping

import numpy as np

from jprotop.attacks import aims as aims_of
from jprotop.attacks import cases as attack_cases
from jprotop.attacks import in_turn, strong
from jprotop.attacks.aims import MASKS, TARGETS, Aims
from jprotop.attacks.in_turn import Subjects
from jprotop.attacks.strong import STRENGTHS, Setting
from jprotop.attacks.strong_cases import Curve, Reached, curve, levels_of
from jprotop.errors import InputError
from jprotop.experiments import strong_attack_numbers as numbers_of
from jprotop.experiments import strong_attack_rounds as rounds
from jprotop.experiments.attacking import (
  SEED,
  budget_flags,
  budget_of,
  check_pushed,
  count_flag,
  rows_of,
  sample_of,
)
from jprotop.experiments.experiment import Beside, Experiment, Flag, register
from jprotop.experiments.strong_attack_numbers import OFF_SOURCE, StrongAttack
from jprotop.experiments.strong_attack_rounds import Plan
from jprotop.experiments.strong_attack_text import PASSAGES, claims, tell
from jprotop.files import atomic_path, ensure_folder, write_text
from jprotop.prototypes import selectors
from jprotop.prototypes.see import see
from jprotop.report import canvas, eps_curves, tables
from jprotop.runs.config_keys import names_in
from jprotop.runs.run import Run

_log = logging.getLogger("jprotop")
# A look without gradients beside one with them: a backward pass costs as much as two forward ones.
_FORWARD_ALONE = 1 / 3


def plan_of(run: Run) -> Plan:
  """What the config of a run asks for. Where it asks for the paper's attack alone, strong-small.

  Raises:
    InputError: a number, or a name, that makes no sense.
  """
  settings, budget = run.config["measure"], budget_of(run)
  strength, more = settings["attack"]["strength"], settings["strong_attack"]
  return Plan(
    name=strength if strength in STRENGTHS else "strong-small",
    levels=levels_of(more["curve"], budget.eps),
    queries=more["queries"],
    targets=tuple(names_in(more["targets"])),
    top_k=more["top_k"],
    budget=budget,
  )


def measure(run: Run, out: pathlib.Path, *, beside: Beside | None = None) -> dict:
  """All attacks of the plan on a run's network; returns the record.

  Raises:
    InputError: more prototypes than there are, no image to attack, or a budget without sense.
  """
  plan, seed = plan_of(run), run.config["measure"]["seed"]
  check_pushed(run)
  in_turn.check_top_k(plan.top_k, len(run.model.prototype_class))
  ensure_folder(out / "figures")
  subjects, sample = _draw(run, plan)
  network = run.network.in_files(plan.budget.survive_jpeg)
  setting = Setting(network, plan.budget.eps, seed, rows_of(run))
  aimed = aims_of.off_source(subjects, 0)
  if not len(aimed[0]):
    raise InputError("S covers the whole map of every image, so that no prototype can be moved")
  _tell_time(setting, aimed[1], plan, len(subjects.index))
  found = curve(setting, aimed[1], plan.strength, MASKS[0], plan.levels)
  first = {
    "strong": found.reached(),
    "paper": rounds.papers(setting, aimed[1], plan.budget, MASKS[0]),
    "control": rounds.controls(setting, aimed[1], plan.strength, MASKS[0]),
  }
  square = _square(setting, aimed[1], plan)
  measured = rounds.on_masks(setting, OFF_SOURCE, aimed, plan, first)
  for target in plan.targets:
    measured += rounds.on_masks(setting, target, TARGETS[target](subjects, seed), plan)
  images = numbers_of.per_image(subjects, measured, found, square)
  _write(out, run, (subjects, aimed), found, images)
  record = {
    **_what(plan, subjects, sample, seed),
    **_in_ranks(setting, subjects, plan, first),
    "num_not_attackable": len(subjects.index) - len(aimed[0]),
    "curve": numbers_of.curve_record(found),
    "by_target": [on.record() for on in measured],
    "without_gradients": numbers_of.without_gradients(plan.queries, first["strong"], square),
    "images": images,
  }
  _draw_curves(out, run, record, beside)
  return record


def _draw_curves(out: pathlib.Path, run: Run, record: dict, beside: Beside | None) -> None:
  """The network's curve, beside those of networks that were measured before."""
  others = {name: other["curve"] for name, other in (beside.found if beside else {}).items()}
  curves = {**others, run.config["train"]["network"]: record["curve"]}
  canvas.save(eps_curves.eps_curves(curves), out / "figures/eps_curve.png")


def _draw(run: Run, plan: Plan) -> tuple[Subjects, dict[str, int]]:
  """The images, their top prototypes, and from how many they were drawn."""
  split, size = run.seen.test, run.config["compute"]["evaluation_batch_size"]
  scores = see(run.network, split, selectors.scores, batch_size=size, title="clean images")
  count, seed = run.config["measure"]["strong_attack"]["num_images"], run.config["measure"]["seed"]
  drawn = attack_cases.draw(split, scores, count, seed=seed)
  subjects = in_turn.choose_subjects(run.network, drawn, top_k=plan.top_k, batch_size=rows_of(run))
  return subjects, sample_of(drawn)


def _tell_time(setting: Setting, aims: Aims, plan: Plan, num_images: int) -> None:
  """Says how long it takes where nothing moves, from the time of some looks."""
  seconds = strong.seconds_a_look(setting, aims)
  with_gradients, without = plan.most_looks(num_images)
  minutes = seconds * (with_gradients + _FORWARD_ALONE * without) / 60
  _log.info(
    "%s on %d images: at most about %.1f minutes here, where no prototype moves (%d looks with "
    "gradients, %d without); one that moves with its class kept ends its own tries",
    plan.name,
    num_images,
    minutes,
    with_gradients,
    without,
  )


def _square(setting: Setting, aims: Aims, plan: Plan) -> Reached | None:
  if not plan.queries:
    return None
  found = strong.square(setting, aims, plan.queries, MASKS[0])
  return Reached(found.moved, found.kept)


def _what(plan: Plan, subjects: Subjects, sample: dict[str, int], seed: int) -> dict:
  """What was tried."""
  return {
    "strength": plan.name,
    "restarts": plan.strength.restarts,
    "num_steps": plan.strength.num_steps,
    "looks": plan.strength.looks,
    "seed": seed,
    "budget": dataclasses.asdict(plan.budget),
    "sample": sample,
    "top_k": plan.top_k,
  }


def _in_ranks(
  setting: Setting, subjects: Subjects, plan: Plan, first: Mapping[str, Reached]
) -> dict[str, dict]:
  """The rates with the first k prototypes, of each attack.

  Args:
    first: what each reaches with the top prototypes.
  """

  def strongest(rank, aims):
    found = strong.worst_case(setting, aims, plan.strength, MASKS[0], title=_nth(rank))
    return Reached(found.moved, found.kept)

  attacks = {
    "strong": strongest,
    "paper": lambda rank, aims: rounds.papers(setting, aims, plan.budget, MASKS[0], rank),
    "control": lambda rank, aims: rounds.controls(setting, aims, plan.strength, MASKS[0]),
  }

  def rates_at(name):
    def attack(rank, aims):
      return attacks[name](rank, aims) if rank else first[name]

    return rounds.in_ranks(subjects, attack).rates_at()

  return {f"{name}_at": rates_at(name) for name in attacks}


def _nth(rank: int) -> str:
  return f"APGD, prototype {rank + 1}"


def _write(
  out: pathlib.Path,
  run: Run,
  aimed: tuple[Subjects, tuple[np.ndarray, Aims]],
  found: Curve,
  images: list[dict],
) -> None:
  """strong_attack.csv and strong_attack.npz."""
  write_text(out / "strong_attack.csv", tables.csv_table(images, list(images[0])))
  subjects, (rows, aims) = aimed
  at = np.minimum(found.kept_at, len(found.levels))
  at = np.where(at < len(found.levels), at, found.moved_at)
  with atomic_path(out / "strong_attack.npz") as temporary:
    np.savez(
      temporary,
      allow_pickle=False,
      image_id=np.array([subjects.images.image_id[row] for row in rows]),
      attacked=found.image,
      prototype=aims.prototype,
      source=aims.source,
      eps=np.array([*found.levels, np.nan])[at],
    )


register(
  Experiment(
    name="strong_attack",
    summary="how many prototypes the strongest attack moves, from the smallest eps on",
    measure=measure,
    record=StrongAttack,
    networks=("standard", "adversarial"),
    also=("standard",),
    settings=("attack", "strong_attack", "seed"),
    wanted=lambda config: config["measure"]["attack"]["strength"] in STRENGTHS,
    flags=(
      Flag(
        name="attack",
        help="How hard it tries.",
        setting="measure.attack.strength",
        choices=tuple(STRENGTHS),
      ),
      count_flag("measure.strong_attack", "num_images", "How many images."),
      count_flag("measure.strong_attack", "top_k", "How many prototypes of each.", least=None),
      Flag(
        name="curve",
        help="Smaller eps to try first, in 1/255, as in 0.5,1,2,4.",
        setting="measure.strong_attack.curve",
      ),
      Flag(
        name="targets",
        help="Other places than off S: head to stomach, random rectangle.",
        setting="measure.strong_attack.targets",
      ),
      count_flag(
        "measure.strong_attack",
        "queries",
        "Looks of Square attack, which needs no gradients; 0: none.",
        least=0,
      ),
      *budget_flags("measure.attack"),
      SEED,
    ),
    tell=tell,
    passages=PASSAGES,
    claims=claims,
  )
)
