#!/usr/bin/env bash
# One model, three robots: each has a session of its own, and what they ask for at once is computed as one batch.
# Here all are on this computer and simulated; elsewhere each `drive` runs at its robot (see deploy_far.sh).
# The live page is at http://127.0.0.1:8000.
#
#   bash examples/serve_several_robots.sh outputs/adapted/task/checkpoints/last/pretrained_model
set -euo pipefail

POLICY=${1:-outputs/adapted/task/checkpoints/last/pretrained_model}
ROBOT=${ROBOT:---robot.type=wam_sim_arm --robot.arm=so101}
TASK=${TASK:-push the red cube to the left}
DURATION=${DURATION:-20}
PORT=${PORT:-8000}

lerobot-wam serve --policy.path="$POLICY" --port=$PORT --dashboard --max-sessions=8 &
SERVER=$!
trap "kill $SERVER" EXIT
until curl --silent --fail http://127.0.0.1:$PORT/readyz; do kill -0 $SERVER; sleep 1; done

lerobot-wam drive --server=ws://127.0.0.1:$PORT $ROBOT --robot.scene=1 --task="$TASK" --duration=$DURATION & ONE=$!
lerobot-wam drive --server=ws://127.0.0.1:$PORT $ROBOT --robot.scene=2 --task="$TASK" --duration=$DURATION & TWO=$!
lerobot-wam drive --server=ws://127.0.0.1:$PORT $ROBOT --robot.scene=3 --task="$TASK" --duration=$DURATION
wait $ONE $TWO
