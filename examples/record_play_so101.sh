#!/usr/bin/env bash
# Record a robot with LeRobot's own command: first play (push things about, no goal), then a task.
# As written on the simulated SO-101; on a real one, at 30 Hz, with your ports and cameras:
#
#   export ROBOT='--robot.type=so101_follower --robot.id=follower --robot.port=/dev/ttyACM0'
#   ROBOT+=' --robot.cameras={"front":{"type":"opencv","index_or_path":0,"width":640,"height":480,"fps":30}}'
#   export LEADER='--teleop.type=so101_leader --teleop.id=leader --teleop.port=/dev/ttyACM1'
#   export PLAYER=$LEADER TASK="put the cube into the bowl" FPS=30 TASK_SECONDS=20 RESET_SECONDS=10
#   bash examples/record_play_so101.sh outputs/my_arm
set -euo pipefail

OUT=${1:-outputs/so101}
ROBOT=${ROBOT:---robot.type=wam_sim_arm --robot.arm=so101}
PLAYER=${PLAYER:---teleop.type=wam_sim_expert --teleop.mode=play}
LEADER=${LEADER:---teleop.type=wam_sim_expert --teleop.tasks=left-red}
TASK=${TASK:-push the red cube to the left}
FPS=${FPS:-10}
PLAY_EPISODES=${PLAY_EPISODES:-5}
PLAY_SECONDS=${PLAY_SECONDS:-60}
TASK_EPISODES=${TASK_EPISODES:-50}
TASK_SECONDS=${TASK_SECONDS:-2.5}
RESET_SECONDS=${RESET_SECONDS:-0}

lerobot-record $ROBOT $PLAYER \
  --dataset.repo_id=local/play --dataset.root="$OUT/play" --dataset.single_task=play --dataset.fps=$FPS \
  --dataset.num_episodes=$PLAY_EPISODES --dataset.episode_time_s=$PLAY_SECONDS --dataset.reset_time_s=$RESET_SECONDS \
  --dataset.push_to_hub=false --play_sounds=false

lerobot-record $ROBOT $LEADER \
  --dataset.repo_id=local/task --dataset.root="$OUT/task" --dataset.single_task="$TASK" --dataset.fps=$FPS \
  --dataset.num_episodes=$TASK_EPISODES --dataset.episode_time_s=$TASK_SECONDS --dataset.reset_time_s=$RESET_SECONDS \
  --dataset.push_to_hub=false --play_sounds=false
