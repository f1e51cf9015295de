"""Pushes and touches apart: the held-out tasks are pushes alone, and a push is harder than a touch.

Success on all seen tasks is therefore no yardstick for unseen ones; success on seen pushes is.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.claims.scales import Scale
from benchmarks.paired import outcomes, trial
from lerobot_wam.sim.tasks import DIRECTIONS, select_tasks

SPLIT = ("seen", "unseen_scenes")
"""Conditions whose tasks are of both kinds."""


def apart(scale: Scale, record: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's record with a condition for the pushes and one for the touches in place of each of `SPLIT`."""
    metrics = record["metrics"]
    pushes = [task.stages[0].verb in DIRECTIONS for task in select_tasks(scale.seen)]
    conditions = {}
    for name, found in metrics["conditions"].items():
        if name not in SPLIT:
            conditions[name] = found
            continue
        for kind, wanted in (("pushes", True), ("touches", False)):
            # Scene s plays task s mod the number of tasks, see `TabletopEnv`.
            own = [
                success
                for scene, success in enumerate(trial(found), metrics["first_scene"])
                if pushes[scene % len(pushes)] == wanted
            ]
            if own:
                conditions[f"{name}_{kind}"] = outcomes(own)
    return {**record, "metrics": {**metrics, "conditions": conditions}}
