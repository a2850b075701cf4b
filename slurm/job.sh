#!/bin/bash
# The body of a job: one torchrun a node, and what happens when they end. train.sbatch and transfer.sbatch
# start it on the job's first node: job.sh launch.train CONFIG [section.key=value ...]
set -uo pipefail
PYTHON=${PYTHON:-.venv/bin/python}

# Asked to stop, the ranks save; this script only waits for them, and decides at its end.
trap : TERM USR1

# One rank per GPU of a step, else one per node. Steps are asked: they get the GPUs that were asked for, while
# this script sees all GPUs of a node that the job has for itself.
RANKS=$(srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 bash -c 'echo "${SLURM_GPUS_ON_NODE:-1}"' |
  sort -n | tail -n 1)

# %a is the number of an array's task, as in sbatch's own file names.
set -- "${@//%a/${SLURM_ARRAY_TASK_ID:-0}}"
begin=$("$PYTHON" -m launch.job begin "${RANKS:-${SLURM_GPUS_ON_NODE:-1}}" "$@") || exit
mapfile -t begin <<<"$begin"
RUN=${begin[0]} NODES=${begin[1]}

# All nodes meet at an address of the first one, not at its name, which may mean localhost there; at a port
# of the job's own, below those that the kernel hands out.
HEAD=${begin[2]} PORT=$((10000 + SLURM_JOB_ID % 20000))
# The ranks leave their code here: when some nodes' have ended, srun ends the others' with another one.
EXIT_NOTE=${begin[3]}
# The ranks stop in time by themselves; older SLURMs don't tell them when.
SLURM_JOB_END_TIME=${SLURM_JOB_END_TIME:-${begin[4]:-}}
export PYTHON HEAD PORT EXIT_NOTE SLURM_JOB_END_TIME

srun --nodes="$NODES" --ntasks-per-node=1 --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_ON_NODE" bash -c '
  here=$("$PYTHON" -c "from pipeline.network import address_towards as here; print(here(\"$HEAD\"))") || exit
  exec "$PYTHON" -m launch.torchrun \
    --nnodes="$SLURM_STEP_NUM_NODES" --nproc-per-node="${SLURM_GPUS_ON_NODE:-1}" --local-addr="$here" \
    --rdzv-backend=c10d --rdzv-endpoint="$HEAD:$PORT" --rdzv-id="$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" \
    --rdzv-conf="is_host=$((SLURM_NODEID == 0))" \
    -m "$@"' job "$@"
exec "$PYTHON" -m launch.job end $? "$RUN"
