r"""Train a prototype network: warm, joint, push, last layer. A killed run goes on where it was.

  jprotop train --config=demo --workdir=runs/demo

Any config value can be changed: --config.data.dir=DIR --config.train.seed=1. What they mean is
said in jprotop/runs/config.py.

All devices of the machine share each batch. Those of several machines, or processes, do too where
each is given the command: on a TPU pod, with Slurm (a task for each GPU), on hosts with GPUs, and
as two processes on one CPU:

  gcloud compute tpus tpu-vm ssh POD --worker=all --command="cd jprotop && \
    .venv/bin/jprotop train --config=CONFIG --workdir=RUN --coordinator=auto"
  srun --ntasks-per-node=GPUS jprotop train --config=CONFIG --workdir=RUN \
    --coordinator=auto
  for i in 0 1; do ssh host$i "cd jprotop && .venv/bin/jprotop train \
    --config=CONFIG --workdir=RUN --coordinator=host0:8476 --num_processes=2 --process_id=$i" & \
    done; wait
  for i in 0 1; do jprotop train --config=tiny --workdir=runs/two \
    --coordinator=localhost:8476 --num_processes=2 --process_id=$i & done; wait

Other commands take the same flags. The first process (0) alone reads and writes RUN, on its own
disk, and speaks for all; every host needs the data, and prepares them in its cache, or waits for
the one that does so in a cache that they share. If a process dies, the others end within
--peer_timeout seconds; the same command goes on from the last checkpoint, also with another number
of devices, as long as they divide the batch.
"""

from jprotop.cli import flags
from jprotop.files import check_writable
from jprotop.runs import processes
from jprotop.training import loop


def define_flags() -> None:
  flags.define_workdir()
  flags.define_config(trains=True)


def main() -> None:
  workdir = flags.workdir()
  processes.from_first(lambda: check_writable(workdir))
  loop.train(flags.config(), str(workdir))
  print(f"Trained: {workdir}. Next: jprotop accuracy --workdir={workdir}")
