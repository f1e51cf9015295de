#!/usr/bin/env bash
# Turn released checkpoints into policies for --policy.path. Each works shard by shard in a few GB of memory; stopped,
# the same command goes on where it was.
#
#   bash examples/import_checkpoint.sh checkpoints
set -euo pipefail

OUT=${1:-checkpoints}

# The wording around the task that a checkpoint was trained with is not in it; without a file, ours is used:
#   echo 'oxe_droid: "... {task} ..."' > droid_prompt.yaml     and add --prompt-template droid_prompt.yaml
lerobot-wam import GEAR-Dreams/DreamZero-DROID --out "$OUT/droid"

# A LoRA fine-tune is merged onto the checkpoint that it was trained on, and refused on any other:
#   lerobot-wam import my_finetune --base GEAR-Dreams/DreamZero-AgiBot --out "$OUT/mine"

# A video model to train from: the tensors of the robot, and for Wan2.2 the image branch, start from a seed.
lerobot-wam import Wan-AI/Wan2.2-TI2V-5B-Diffusers --out "$OUT/wan5b"

lerobot-wam doctor "$OUT/droid"
