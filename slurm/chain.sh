#!/bin/bash
# By hand what `launch.submit chain` does after checking everything: train, then a job for each dataset of the
# transfer's config (here five), then the report. After the fourth word, section.key=value changes the config of
# the training; all else are sbatch's options, for every job, but transfers and the report have one node each.
#   bash slurm/chain.sh configs/imagenet/resnet50.yaml configs/transfer/five.yaml runs/imagenet-resnet50 0-4 \
#     train.batch=1024 --nodes 4 --gpus-per-node 8
set -euo pipefail
CONFIG=$1 TRANSFER=$2 RUN=$3 DATASETS=$4
changes=() options=()
for word in "${@:5}"; do
  if [[ $word == [a-z]*=* ]]; then changes+=("$word"); else options+=("$word"); fi
done

train=$(sbatch --parsable "${options[@]}" slurm/train.sbatch "$CONFIG" "${changes[@]}")
options+=(--nodes=1 --kill-on-invalid-dep=yes)
words=(runs="$(dirname "$RUN")" name="$(basename "$RUN")" checkpoint="$RUN" --only %a)
transfer=$(sbatch --parsable "${options[@]}" --dependency="afterok:$train" --array="$DATASETS" \
  slurm/transfer.sbatch "$TRANSFER" "${words[@]}")
report=$(sbatch --parsable "${options[@]}" --dependency="afterok:$train,afterany:$transfer" \
  slurm/command.sbatch launch.report "$RUN")
echo "train $train, transfer $transfer, report $report"
