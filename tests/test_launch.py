"""One command in several processes: how it is started, and what becomes of it when one dies."""

import json
import os
import socket
import subprocess
import sys
import time

import jax
import pytest
from absl import flags
from absl.testing import flagsaver
from commands import ROOT, command

from configs import tiny
from jprotop.cli import launch, program
from jprotop.errors import InputError
from jprotop.runs import config_files
from jprotop.runs import run as runs
from jprotop.training import copies

# Without a pretraining, and with enough epochs to be killed in the middle.
EPOCHS = 12
CHANGES = {"pretrain": 0, "warm": EPOCHS, "joint": 0}
TRAIN = [f"--config.train.{phase}.epochs={count}" for phase, count in CHANGES.items()]
EXTENSION = ROOT / "tests/tiny_network.py"
NETWORK = f"--config.extensions={EXTENSION}"
TRAIN[:0] = ["--config=configs/tiny.py", NETWORK, "--config.train.model.backbone=resnet_tiny"]


def free_port():
  with socket.socket() as listener:
    listener.bind(("localhost", 0))
    return listener.getsockname()[1]


def launched(module, *arguments, cache):
  """The command in two processes; those are not waited for."""
  many = [f"--coordinator=localhost:{free_port()}", "--num_processes=2", "--peer_timeout=10"]
  env = {**os.environ, "JPROTOP_CACHE": str(cache)}
  start = [sys.executable, "-m", f"experiments.{module}", *map(str, arguments), *many]
  return [
    subprocess.Popen(
      [*start, f"--process_id={i}"],
      cwd=ROOT,
      env=env,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """A cache with the data set, which both processes need."""
  cache = tmp_path_factory.mktemp("cache")
  config = tiny.get_config().to_dict()
  config["data"]["cache"] = str(cache)
  copies.augmented(config, runs.open_dataset(config).train)
  return cache


@pytest.fixture(scope="module")
def lost(prepared, tmp_path_factory):
  """(workdir, (status, stdout, stderr) of the process that is left, seconds until it ended)."""
  workdir = tmp_path_factory.mktemp("lost") / "run"
  first, second = launched("train", *TRAIN, f"--workdir={workdir}", cache=prepared)
  deadline = time.monotonic() + 120
  while not (workdir / "checkpoints/1").exists():
    assert first.poll() is None and time.monotonic() < deadline, first.communicate()
    time.sleep(0.05)
  second.kill()
  start = time.monotonic()
  said = first.communicate(timeout=120)
  second.communicate()
  return workdir, (first.returncode, *said), time.monotonic() - start


def test_a_process_that_dies_ends_the_others_soon_with_what_to_do(lost):
  _, (status, _, stderr), seconds = lost
  assert status not in (0, None)
  assert seconds < 60
  last = stderr.strip().splitlines()[-1]
  assert "another process of the command has ended" in last
  assert "Give the same command again, in every process" in last


@pytest.fixture(scope="module")
def continued(lost, prepared):
  """(workdir, output) of the same command, now in one process with two devices."""
  assert not (prepared / "xla").exists()  # One process must not find what another does not.
  done = command("train", *TRAIN, f"--workdir={lost[0]}", cache=prepared)
  assert done.returncode == 0, done.stderr[-3000:]
  return lost[0], done


def test_the_same_command_goes_on_from_the_last_checkpoint(continued, monkeypatch):
  workdir, done = continued
  assert f"continuing {workdir} after epoch" in done.stderr
  rows = [json.loads(line) for line in (workdir / "history.jsonl").read_text().splitlines()]
  trained = [row["epoch"] for row in rows if row["phase"] == "warm" and row["split"] == "train"]
  assert trained == list(range(EPOCHS))
  assert all(row["count"] == 30 for row in rows if row.get("split") == "train")
  monkeypatch.setattr(config_files, "_loaded", {str(EXTENSION)})  # By tests/conftest.py.
  assert runs.is_finished(workdir)


def test_two_processes_are_one_command(continued, prepared, tmp_path):
  arguments = [f"--workdir={continued[0]}", f"--out={tmp_path}", "--num_images=3", "--num_steps=1"]
  arguments.append(NETWORK)
  processes = launched("vanishing_head", *arguments, cache=prepared)
  said = [process.communicate(timeout=120) for process in processes]
  assert [process.returncode for process in processes] == [0, 0], said
  assert "Vanishing head, 3 images" in said[0][0]
  assert "Vanishing head" not in said[1][0] and not said[1][1]  # All would say the same.
  numbers = json.loads((tmp_path / "results.json").read_text())
  assert numbers["vanishing_head"]["standard"]["metrics"]["similarity_before"]["total"] == 3
  assert numbers["environment"]["vanishing_head"]["device"].startswith("4 x")
  assert len(list((tmp_path / "figures").iterdir())) == 3


def test_an_error_of_the_first_ends_all(continued, prepared):
  arguments = [*TRAIN, "--config.train.seed=5", f"--workdir={continued[0]}"]
  processes = launched("train", *arguments, cache=prepared)
  said = [process.communicate(timeout=120) for process in processes]
  assert all(process.returncode for process in processes)
  assert "train.seed: there 0, given 5" in said[0][1] and "Traceback" not in said[0][1]


def test_compiled_programs_are_kept_in_the_cache(continued, prepared):
  (folder,) = (prepared / "xla").iterdir()
  assert any(folder.glob("*-cache"))


@pytest.fixture
def given():
  """Gives the commands' flags, as on a command line."""
  if "coordinator" not in flags.FLAGS:
    launch.define_flags()
  saved = flagsaver.save_flag_values()
  yield lambda *arguments: flags.FLAGS(["command", *arguments])
  flagsaver.restore_flag_values(saved)
  flags.FLAGS.unparse_flags()


def test_whoever_chooses_where_compiled_programs_are_kept_has_them_there(given, monkeypatch):
  before = jax.config.jax_compilation_cache_dir
  jax.config.update("jax_compilation_cache_dir", None)
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")  # Nowhere.
  given()
  program._keep_compiled_programs()
  found = jax.config.jax_compilation_cache_dir
  jax.config.update("jax_compilation_cache_dir", before)
  assert found is None


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["--num_processes=2"], "need --coordinator=HOST:PORT"),
    (["--process_id=0"], "need --coordinator=HOST:PORT"),
    (["--coordinator=a:1", "--process_id=0"], "--num_processes is missing"),
    (["--coordinator=a:1", "--num_processes=2"], "--process_id is missing"),
    (["--coordinator=a:1", "--num_processes=2", "--process_id=2"], "they count from 0"),
  ],
)
def test_incomplete_flags_are_named(given, arguments, message):
  given(*arguments)
  with pytest.raises(InputError, match=message), launch.joined():
    pass


def test_where_no_cluster_says_who_is_there_it_must_be_given(tmp_path):
  done = command("accuracy", "--workdir=x", "--coordinator=auto", cache=tmp_path)
  assert done.returncode == 1
  assert "outside a TPU pod, Slurm, Open MPI or Kubernetes give --coordinator" in done.stderr
