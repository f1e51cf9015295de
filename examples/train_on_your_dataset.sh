#!/usr/bin/env bash
# Train the smallest preset on a LeRobotDataset v3 in a folder.
#
#   lerobot-wam record --root=outputs/tabletop --episodes=400     # if you have no data yet
#   bash examples/train_on_your_dataset.sh outputs/tabletop outputs/train/first
set -euo pipefail

DATA=${1:-outputs/tabletop}
RUN=${2:-outputs/train/first}
STEPS=${STEPS:-1000}
BATCH=${BATCH:-32}

# Data at 30 frames per second: add --policy.video_stride=6 --policy.chunk_steps=48.
# One worker that forks: enough for small images, and it starts at once.
lerobot-train \
  --dataset.repo_id=local/my_data --dataset.root="$DATA" --dataset.video_backend=pyav \
  --policy.type=wam --policy.preset=nano --policy.push_to_hub=false \
  --output_dir="$RUN" --steps=$STEPS --batch_size=$BATCH --save_freq=200 --log_freq=20 \
  --num_workers=1 --dataloader_multiprocessing_context=fork

lerobot-wam dream \
  --policy.path="$RUN/checkpoints/last/pretrained_model" --dataset.root="$DATA" --out="$RUN/dream"
