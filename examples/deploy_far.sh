#!/usr/bin/env bash
# Let a policy on one computer drive a robot at another. Here both are this one and the robot is the simulated SO-101.
# On the computer with the GPU, for all who have the token:
#
#   (umask 077; python -c "import secrets; print(secrets.token_urlsafe())" > token)
#   lerobot-wam serve --policy.path=outputs/adapted/task/checkpoints/last/pretrained_model --host=0.0.0.0 --token-file=token
#
# At the robot, which needs no GPU and loads no model; wss:// where the server has --tls-cert and --tls-key:
#
#   lerobot-wam drive --server=ws://gpu:8000 --token-file=token --robot.type=so101_follower --robot.port=/dev/ttyACM0
set -euo pipefail

POLICY=${1:-outputs/adapted/task/checkpoints/last/pretrained_model}
ROBOT=${ROBOT:---robot.type=wam_sim_arm --robot.arm=so101}
TASK=${TASK:-push the red cube to the left}
DURATION=${DURATION:-20}
PORT=${PORT:-8000}

lerobot-wam serve --policy.path="$POLICY" --port=$PORT &
SERVER=$!
trap "kill $SERVER" EXIT
until curl --silent --fail http://127.0.0.1:$PORT/readyz; do kill -0 $SERVER; sleep 1; done

lerobot-wam drive --server=ws://127.0.0.1:$PORT $ROBOT --task="$TASK" --duration=$DURATION
