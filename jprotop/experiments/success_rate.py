"""How often Head on Stomach succeeds (App. F.1, Table 3): the top prototypes of each image in turn.

  jprotop success-rate --workdir=runs/demo/standard
  jprotop success-rate --workdir=RUN --protocol=authors --also_correct=RUN2
  jprotop success-rate --workdir=RUN --out=OUT --num_images=50 --top_k=3 --ablation

It attacks test images that the network classifies correctly, drawn from --seed. The attack on an
image goes on until a prototype moved and the predicted class was kept; what App. F.1 counts, a
prototype that moved whatever the class, is counted beside it. Protocol `paper` does what the paper
states, `authors` what its authors' code computes; --ablation switches each difference on alone.
Figures, results.json and success_rate_PROTOCOL.csv, a line an image, go to --out, by default the
run's folder.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jprotop.attacks import cases as attack_cases
from jprotop.attacks import in_turn
from jprotop.attacks.budget import Budget
from jprotop.attacks.cases import RULES, Rules
from jprotop.attacks.in_turn import Outcomes, Subjects
from jprotop.experiments import success_numbers
from jprotop.experiments.attacking import (
  ATTACK_FLAGS,
  SEED,
  budget_flags,
  budget_of,
  count_flag,
  rows_of,
  sample_of,
)
from jprotop.experiments.experiment import Beside, Experiment, Flag, register
from jprotop.experiments.success_claims import claims
from jprotop.experiments.success_text import PASSAGES, tell
from jprotop.files import ensure_folder, write_text
from jprotop.prototypes import accuracy, selectors
from jprotop.prototypes.see import see
from jprotop.report import canvas, success_charts, tables
from jprotop.runs import run as runs
from jprotop.runs.config_keys import names_in
from jprotop.runs.run import Run


@dataclasses.dataclass(frozen=True)
class _Attacks:
  """The attacks on one run, with its budget and seed."""

  run: Run
  budget: Budget
  seed: int

  @property
  def objective(self) -> str:
    return self.run.config["measure"]["attack"]["objective"]

  def outcomes(
    self, subjects: Subjects, rules: Rules, objective: str | None, title: str
  ) -> Outcomes:
    functions = in_turn.attacker(
      self.run.network,
      subjects,
      self.budget,
      rules,
      objective=objective,
      seed=self.seed,
      batch_size=rows_of(self.run),
      title=title,
    )
    return in_turn.attack_in_turn(subjects, rules, *functions)


def measure(
  run: Run,
  out: pathlib.Path,
  *,
  protocol: str | None = None,
  ablation: bool = False,
  also_correct: str | None = None,
  beside: Beside | None = None,
) -> dict:
  """Attacks by the rules of one protocol (None: each of them); returns the record.

  Args:
    also_correct: the folder of another run; `authors` takes only images that both classify
      correctly, of `beside.runs` too.

  Raises:
    InputError: more prototypes than there are, no image to attack, or a budget without sense.
  """
  settings, seed = run.config["measure"]["success_rate"], run.config["measure"]["seed"]
  in_turn.check_top_k(settings["top_k"], len(run.model.prototype_class))
  attacks = _Attacks(run, budget_of(run), seed)
  ensure_folder(out / "figures")
  others = _others(run, also_correct, beside)
  draw = _drawer(run, others)
  wanted = list(RULES) if ablation or not protocol else [protocol]
  drawn = {name: draw(shared=name == "authors" and bool(others)) for name in wanted}
  samples = {name: subjects for name, (subjects, _) in drawn.items()}
  found, outcomes = {}, {}
  for name in [protocol] if protocol else RULES:
    outcomes[name], found[name] = _measure_protocol(attacks, name, *drawn[name])
    _write_protocol(out, name, samples[name], outcomes[name], found[name])
  canvas.save(success_charts.success_at_k(found), out / "figures/success_at_k.png")
  if ablation:
    found["ablation"] = _ablation(attacks, samples, outcomes, shared=bool(others))
  return found


def _measure_protocol(
  attacks: _Attacks, name: str, subjects: Subjects, sample: dict[str, int]
) -> tuple[Outcomes, dict[str, Any]]:
  """What came of a protocol's attack, and its numbers beside those of the control."""
  outcome, control = (
    attacks.outcomes(subjects, RULES[name], objective, title)
    for objective, title in ((attacks.objective, name), (None, f"{name}, random noise"))
  )
  return outcome, {
    **success_numbers.summarise(subjects, outcome, control),
    "num_fewer_than_asked": sample["asked"] - sample["taken"],
    "sample": sample,
    "seed": attacks.seed,
    "budget": dataclasses.asdict(attacks.budget),
  }


def _others(run: Run, also_correct: str | None, beside: Beside | None) -> list[Run]:
  """The other networks that must be right, too, for `authors` to take an image."""
  others = [*beside.runs.values()] if beside else []
  return others + ([runs.open_run(also_correct, run.dataset)] if also_correct else [])


def _correct(other: Run, run: Run) -> np.ndarray:
  """Which of a run's test images another network classifies correctly, boolean [N_test]."""
  size = run.config["compute"]["evaluation_batch_size"]
  return accuracy.correct(other.network, run.dataset.test, batch_size=size)


def _drawer(run: Run, others: Sequence[Run]) -> Callable[..., tuple[Subjects, dict[str, int]]]:
  """Draws the images to attack, and says from how many; all calls share one pass.

  The function's argument `shared` says whether the other networks must be right, too.
  """
  split, size = run.seen.test, run.config["compute"]["evaluation_batch_size"]
  settings, seed = run.config["measure"]["success_rate"], run.config["measure"]["seed"]
  scores = see(run.network, split, selectors.scores, batch_size=size, title="clean images")
  right = np.logical_and.reduce([_correct(other, run) for other in others]) if others else None

  def draw(*, shared: bool) -> tuple[Subjects, dict[str, int]]:
    count, also = settings["num_images"], right if shared else None
    drawn = attack_cases.draw(split, scores, count, seed=seed, also_correct=also)
    subjects = in_turn.choose_subjects(
      run.network, drawn, top_k=settings["top_k"], batch_size=rows_of(run)
    )
    return subjects, sample_of(drawn, networks=1 + len(others) * shared)

  return draw


def _ablation(
  attacks: _Attacks, samples: dict[str, Subjects], outcomes: dict[str, Outcomes], *, shared: bool
) -> list[dict]:
  """Rows from `paper` to `authors`; a protocol that was measured already is not attacked again.

  Args:
    shared: whether `authors` has images of its own, those that another network gets right too;
      then this is one more difference, with a row of its own.
  """
  cases = {"paper": ("paper", RULES["paper"])}
  cases |= {name: ("paper", rules) for name, rules in success_numbers.ABLATION.items()}
  if shared:
    cases["paper, images that both networks classify correctly"] = ("authors", RULES["paper"])
  cases["authors"] = ("authors", RULES["authors"])
  rows = []
  for setting, (sample, rules) in cases.items():
    subjects = samples[sample]
    outcome = outcomes.get(setting) or attacks.outcomes(subjects, rules, attacks.objective, setting)
    rows.append(success_numbers.ablation_row(setting, subjects, outcome))
  return rows


def _write_protocol(
  out: pathlib.Path, name: str, subjects: Subjects, outcome: Outcomes, numbers: dict
) -> None:
  """The table of images, and from which part to which prototypes moved."""
  rows = success_numbers.per_image(subjects, outcome)
  write_text(out / f"success_rate_{name}.csv", tables.csv_table(rows, list(rows[0])))
  if numbers["parts"] and np.any(numbers["parts"]["counts"]):
    title = f"Successes by part, protocol {name}"
    path = out / f"figures/parts_{name}.png"
    canvas.save(success_charts.parts(**numbers["parts"], title=title), path)


def _in_study(config: Mapping[str, Any], network: str) -> dict:
  return {"ablation": network in names_in(config["measure"]["success_rate"]["ablate"])}


def _passes(measure: Mapping[str, Any], network: str, _: int) -> float:
  """Three a step, of one or two prototypes of each image; and as many for each ablated rule."""
  settings = measure["success_rate"]
  attacks = len(RULES) + 7 * (network in names_in(settings["ablate"]))
  return 3 * 1.5 * attacks * settings["num_images"] * measure["attack"]["num_steps"]


register(
  Experiment(
    name="success_rate",
    summary="how often that succeeds, with each image's top prototypes in turn (App. F.1)",
    measure=measure,
    record=success_numbers.SuccessRate,
    networks=("standard", "adversarial"),
    also=("standard", "adversarial"),
    settings=("attack", "success_rate", "seed"),
    passes=_passes,
    parts={"table3": ("standard", "adversarial")},
    flags=(
      count_flag("measure.success_rate", "num_images", "How many images."),
      count_flag("measure.success_rate", "top_k", "How many prototypes of each.", least=None),
      Flag(name="protocol", help="Default: each of them.", choices=tuple(RULES)),
      Flag(
        name="ablation",
        kind=bool,
        default=False,
        help="Also switch on each difference of `authors` alone.",
      ),
      Flag(
        name="also_correct",
        help="Another run: `authors` takes only images that both networks classify correctly.",
      ),
      *budget_flags("measure.attack"),
      *ATTACK_FLAGS,
      SEED,
    ),
    in_study=_in_study,
    tell=tell,
    passages=PASSAGES,
    claims=claims,
  )
)
