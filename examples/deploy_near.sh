#!/usr/bin/env bash
# Let a policy drive a robot from this computer. As written on the simulated SO-101; on a real one, for the first time
# with short steps (max_relative_target, in degrees) and a hand at the power switch:
#
#   export ROBOT='--robot.type=so101_follower --robot.id=follower --robot.port=/dev/ttyACM0'
#   ROBOT+=' --robot.cameras={"front":{"type":"opencv","index_or_path":0,"width":640,"height":480,"fps":30}}'
#   ROBOT+=' --robot.max_relative_target=5'
#   export TASK="put the cube into the bowl" FPS=30
#   bash examples/deploy_near.sh outputs/adapted/task/checkpoints/last/pretrained_model
#
# Without rests between two chunks: the next is computed meanwhile (half of a chunk of 8 before this one ends).
#
#   export ENGINE="--inference.type=rtc --inference.queue_threshold=4 --inference.rtc.execution_horizon=6"
set -euo pipefail

POLICY=${1:-outputs/adapted/task/checkpoints/last/pretrained_model}
ROBOT=${ROBOT:---robot.type=wam_sim_arm --robot.arm=so101}
ENGINE=${ENGINE:---inference.type=sync}
TASK=${TASK:-push the red cube to the left}
FPS=${FPS:-10}
DURATION=${DURATION:-20}

lerobot-rollout --policy.path="$POLICY" $ROBOT $ENGINE --task="$TASK" --fps=$FPS --duration=$DURATION
