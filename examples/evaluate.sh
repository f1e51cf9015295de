#!/usr/bin/env bash
# Evaluate a checkpoint in the simulated tabletop, beside two controls that a policy which reads and looks must fail.
# Needs the simulator: pip install "lerobot-policy-wam[sim]"
#
#   bash examples/evaluate.sh outputs/train/first/checkpoints/last/pretrained_model outputs/eval/first
set -euo pipefail

CHECKPOINT=${1:-outputs/train/first/checkpoints/last/pretrained_model}
OUT=${2:-outputs/eval/first}
ARM=${ARM:-viperx}
EPISODES=${EPISODES:-48}

lerobot-eval --policy.path="$CHECKPOINT" --policy.save_predicted_video=true \
  --env.type=wam_tabletop --env.arm=$ARM \
  --eval.n_episodes=$EPISODES --eval.batch_size=12 --output_dir="$OUT/policy"

lerobot-eval --policy.path="$CHECKPOINT" \
  --env.type=wam_tabletop --env.arm=$ARM --env.instruction=wrong \
  --eval.n_episodes=$EPISODES --eval.batch_size=12 --output_dir="$OUT/wrong_instruction"

lerobot-eval --policy.path="$CHECKPOINT" \
  --env.type=wam_tabletop --env.arm=$ARM --env.blank_image=true \
  --eval.n_episodes=$EPISODES --eval.batch_size=12 --output_dir="$OUT/blank_image"

grep -H pc_success "$OUT"/*/eval_info.json
