#!/bin/bash
# By hand what `launch.submit chain` does after checking everything: train, then a job for each dataset of the
# transfer's config (here five), then the report. Options after the fourth word are sbatch's, for the training.
#   bash slurm/chain.sh configs/imagenet/resnet50.yaml configs/transfer/five.yaml runs/imagenet-resnet50 0-4 \
#     --nodes 4 --gpus-per-node 8
set -euo pipefail
CONFIG=$1 TRANSFER=$2 RUN=$3 DATASETS=$4

train=$(sbatch --parsable "${@:5}" slurm/train.sbatch "$CONFIG")
after=(--dependency="afterok:$train" --kill-on-invalid-dep=yes)
words=(runs="$(dirname "$RUN")" name="$(basename "$RUN")" checkpoint="$RUN" --only %a)
transfer=$(sbatch --parsable "${after[@]}" --array="$DATASETS" slurm/transfer.sbatch "$TRANSFER" "${words[@]}")
after=(--dependency="afterok:$train,afterany:$transfer" --kill-on-invalid-dep=yes)
report=$(sbatch --parsable "${after[@]}" slurm/command.sbatch launch.report "$RUN")
echo "train $train, transfer $transfer, report $report"
