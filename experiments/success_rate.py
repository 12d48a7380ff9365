"""How often Head on Stomach succeeds (App. F.1, Table 3): the top prototypes of each image in turn.

  python -m experiments.success_rate --workdir=runs/demo/standard
  python -m experiments.success_rate --workdir=RUN --protocol=authors --also_correct=RUN2
  python -m experiments.success_rate --workdir=RUN --out=OUT --num_images=50 --top_k=3 --ablation

It attacks test images that the network classifies correctly, drawn from --seed. Protocol `paper`
does what the paper states, `authors` what its authors' code computes; --ablation switches each
difference on alone. Figures, results.json and success_rate_PROTOCOL.csv, a line an image, go to
--out, by default the run's folder.
"""

import dataclasses
import pathlib

import numpy as np
from absl import flags

from experiments import budget, cli
from jprotop.evaluation import accuracy, attack, attack_cases, attack_rounds
from jprotop.evaluation import success_rate as experiment
from jprotop.evaluation.attack import Budget
from jprotop.evaluation.attack_cases import RULES, Rules
from jprotop.evaluation.attack_rounds import Outcome, Subjects
from jprotop.figures import canvas, success_charts, tables
from jprotop.files import ensure_folder, write_text
from jprotop.training import runs
from jprotop.training.runs import Run


def define_flags() -> None:
  """The command's own flags; not at import, for other commands import this file."""
  flags.DEFINE_integer("num_images", None, "How many images; default: the run's config.")
  flags.DEFINE_integer("top_k", None, "How many prototypes of each; default: the run's config.")
  flags.DEFINE_enum("protocol", None, list(RULES), "Default: each of them.")
  flags.DEFINE_boolean("ablation", False, "Also switch on each difference of `authors` alone.")
  flags.DEFINE_string(
    "also_correct",
    None,
    "Another run: `authors` takes only images that both networks classify correctly.",
  )
  budget.define_flags()
  cli.define_drawing("the choice of images and of the noise")


def measure(
  run: Run,
  place: pathlib.Path,
  *,
  num_images: int | None = None,
  top_k: int | None = None,
  protocol: str | None = None,
  ablation: bool = False,
  also_correct: np.ndarray | None = None,
  seed: int = 0,
  **changes: float | int,
) -> dict:
  """Arguments are the command's flags, `changes` those of the budget.

  Args:
    also_correct: boolean [N_test], whether another network is right too; heeded by `authors`.

  Raises:
    InputError: more prototypes than there are, no image to attack, or a budget without sense.
  """
  settings, all_if_fewer = run.config["success_rate"], num_images is None
  num_images = settings["num_images"] if num_images is None else num_images
  top_k = settings["top_k"] if top_k is None else top_k
  attack_rounds.check_top_k(top_k, len(run.model.prototype_class))
  limits = budget.of(run.config, changes)
  ensure_folder(place / "figures")
  draw = _drawer(run, num_images, top_k, seed, all_if_fewer=all_if_fewer)
  wanted = list(RULES) if ablation or not protocol else [protocol]
  samples = {name: draw(also_correct if name == "authors" else None) for name in wanted}
  found, outcomes = {}, {}
  for name in [protocol] if protocol else RULES:
    subjects = samples[name]
    outcome, control = (
      _attack(run, subjects, limits, RULES[name], kind, seed, title)
      for kind, title in (("move", name), ("random", f"{name}, random noise"))
    )
    outcomes[name] = outcome
    found[name] = {
      **experiment.summarise(subjects, outcome, control),
      "num_fewer_than_asked": max(0, num_images - len(subjects.images)),
      "seed": seed,
      "budget": dataclasses.asdict(limits),
    }
    _write_protocol(place, name, subjects, outcome, found[name])
  if ablation:
    rows = _ablation(run, samples, outcomes, limits, seed, shared=also_correct is not None)
    found["ablation"] = rows
  protocols = {name: found[name] for name in RULES if name in found}
  canvas.save(success_charts.success_at_k(protocols), place / "figures/success_at_k.png")
  _print_summary(place, protocols, found.get("ablation", []))
  return {"success_rate": found}


def _drawer(run: Run, num_images: int, top_k: int, seed: int, *, all_if_fewer: bool):
  """A function from `also_correct` to Subjects; one pass over the test set serves all its calls."""
  split, size = run.seen.test, run.config["training"]["evaluation_batch_size"]
  scores = attack.scores(run.model, run.variables, split, batch_size=size)

  def draw(also_correct: np.ndarray | None) -> Subjects:
    indices = attack_cases.draw_correct(
      scores["logits"],
      split.label,
      num_images,
      seed=seed,
      also_correct=also_correct,
      all_if_fewer=all_if_fewer,
    )
    return attack_rounds.choose_subjects(
      run.model,
      run.variables,
      split,
      indices,
      scores,
      top_k=top_k,
      batch_size=budget.rows(run),
    )

  return draw


def _attack(
  run: Run, subjects: Subjects, limits: Budget, rules: Rules, kind: str, seed: int, title: str
) -> Outcome:
  functions = attack_rounds.attacker(
    run.model,
    run.variables,
    subjects,
    limits,
    rules,
    kind=kind,
    seed=seed,
    batch_size=budget.rows(run),
    title=title,
  )
  return attack_rounds.attack_in_turn(subjects, rules, *functions)


def _ablation(
  run: Run,
  samples: dict[str, Subjects],
  outcomes: dict[str, Outcome],
  limits: Budget,
  seed: int,
  *,
  shared: bool,
) -> list[dict]:
  """Rows from `paper` to `authors`; a protocol that was measured already is not attacked again.

  Args:
    shared: whether `authors` has images of its own, those that another network gets right too;
      then this is one more difference, with a row of its own.
  """
  cases = {"paper": ("paper", RULES["paper"])}
  cases |= {name: ("paper", rules) for name, rules in experiment.ABLATION.items()}
  if shared:
    cases["paper, images that both networks classify correctly"] = ("authors", RULES["paper"])
  cases["authors"] = ("authors", RULES["authors"])
  rows = []
  for setting, (sample, rules) in cases.items():
    subjects = samples[sample]
    outcome = outcomes.get(setting) or _attack(run, subjects, limits, rules, "move", seed, setting)
    rows.append(experiment.ablation_row(setting, subjects, outcome))
  return rows


def _write_protocol(
  place: pathlib.Path, name: str, subjects: Subjects, outcome: Outcome, numbers: dict
) -> None:
  """The table of images, and from which part to which prototypes moved."""
  rows = experiment.per_image(subjects, outcome)
  write_text(place / f"success_rate_{name}.csv", tables.csv_table(rows, list(rows[0])))
  path = place / f"figures/parts_{name}.png"
  path.unlink(missing_ok=True)  # of an earlier attack that moved some
  if numbers["parts"] and np.any(numbers["parts"]["counts"]):
    canvas.save(
      success_charts.parts(**numbers["parts"], title=f"Successes by part, protocol {name}"), path
    )


def _print_summary(place: pathlib.Path, protocols: dict[str, dict], ablation: list[dict]) -> None:
  for name, numbers in protocols.items():
    top_k, eps = numbers["top_k"], numbers["budget"]["eps"]
    print(
      f"Success rate, protocol {name}, {numbers['num_images']} images, top {top_k} prototypes, "
      f"eps {eps * 255:.3g}/255:"
    )
    for text, metric in (
      ("success with the first prototype", numbers["rate_at"]["1"]),
      (f"success with one of the first {top_k}", numbers["rate_at"][str(top_k)]),
      ("  by random noise of the same size", numbers["control"]["rate_at"][str(top_k)]),
      ("predicted class kept, of the successes", numbers["prediction_kept"]),
    ):
      print(f"  {text:<42} {tables.format_metric(metric)}")
    if fewer := numbers["num_fewer_than_asked"]:
      print(f"  {fewer} images fewer than asked for: the others are not classified correctly")
    if apart := numbers["num_not_attackable"]:
      print(f"  left out: {apart} images on which S covers the whole map")
  for row in ablation:
    first, rate = (tables.format_metric(row[name]) for name in ("rate_first", "rate"))
    print(f"  {row['setting']}\n    first prototype {first}, all {rate}")
  print(f"  figures in {place}/figures, a line an image in {place}/success_rate_*.csv")


def _correct_too(run: Run, workdir: str) -> np.ndarray:
  """Which of the run's test images another network classifies correctly, boolean [N_test]."""
  other = runs.open_run(workdir, run.dataset)
  split, size = run.seen.test, run.config["training"]["evaluation_batch_size"]
  return accuracy.correct(other.model, other.variables, split, batch_size=size)


def main() -> None:
  given = flags.FLAGS
  cli.measure_run(
    "success_rate",
    lambda run, place: measure(
      run,
      place,
      num_images=given.num_images,
      top_k=given.top_k,
      protocol=given.protocol,
      ablation=given.ablation,
      also_correct=_correct_too(run, given.also_correct) if given.also_correct else None,
      seed=given.seed,
      **budget.given(),
    ),
  )


if __name__ == "__main__":
  define_flags()
  cli.run(main)
