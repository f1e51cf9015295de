#!/usr/bin/env bash
# Teach a trained policy the robot that record_play_so101.sh has recorded: its body from the play, then the task.
#
#   bash examples/adapt.sh outputs/demo/train/checkpoints/last/pretrained_model outputs/so101 outputs/adapted
set -euo pipefail

POLICY=${1:-outputs/demo/train/checkpoints/last/pretrained_model}
DATA=${2:-outputs/so101}
OUT=${3:-outputs/adapted}
STEPS=${STEPS:-2000}
BATCH=${BATCH:-32}

# Half of all samples come from what POLICY was trained on, if that is on this disk; --cotrain=FILE.yaml names it.
lerobot-wam adapt --policy.path="$POLICY" --out="$OUT/play" --steps=$STEPS --batch-size=$BATCH \
  --dataset.repo_id=local/play --dataset.root="$DATA/play"

lerobot-train --policy.path="$OUT/play/policy" --policy.push_to_hub=false --output_dir="$OUT/task" \
  --dataset.repo_id=local/task --dataset.root="$DATA/task" --dataset.video_backend=pyav \
  --steps=$STEPS --batch_size=$BATCH --num_workers=1 --dataloader_multiprocessing_context=fork
