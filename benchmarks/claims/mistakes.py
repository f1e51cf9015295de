"""What a policy does in place of a tabletop task: which cube it goes to, and which way it pushes that."""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.claims.contestants import Condition, evaluate
from lerobot_wam.sim.env import TabletopEnv
from lerobot_wam.sim.tasks import DIRECTIONS, STAY_TOLERANCE
from lerobot_wam.training.loop import swapped

SUCCESS, OTHER_WAY, NAMED_CUBE, OTHER_CUBE, NO_CUBE = ENDINGS = (
    "success",
    "named cube pushed another way",
    "at the named cube, no more",
    "at another cube",
    "at no cube",
)
NEAR = 0.06
"""How far the tool tip comes from a cube's centre if it was at the cube (m)."""


@dataclass
class _Watched:
    """An episode so far: where the cubes were, and how close the tip came to each, [3] (m)."""

    start: np.ndarray
    closest: np.ndarray


def endings(policy: Path, condition: Condition, episodes: int, seed: int, device: str) -> dict[str, int]:
    """Try a policy as `evaluate` does, and count how its episodes end: each of `ENDINGS`."""
    with TemporaryDirectory() as folder, _watching() as found:
        evaluate(policy, condition, episodes=episodes, seed=seed, folder=Path(folder) / "trials", device=device)
    counts = Counter(found)
    return {ending: counts[ending] for ending in ENDINGS}


@contextmanager
def _watching() -> Iterator[list[str]]:
    """Note how episodes end. Those that an environment begins by itself, while others go on, have no seed."""
    reset, step, found = TabletopEnv.reset, TabletopEnv.step, []
    watched: dict[TabletopEnv, _Watched] = {}

    def resetting(env: TabletopEnv, *, seed: int | None = None, **given: Any) -> Any:
        result = reset(env, seed=seed, **given)
        if seed is not None:
            watched[env] = _Watched(env.world.cubes.copy(), np.full(len(env.world.cubes), np.inf))
        return result

    def stepping(env: TabletopEnv, action: np.ndarray) -> Any:
        result = step(env, action)
        if env in watched:
            closest = watched[env].closest
            np.minimum(closest, np.linalg.norm(env.world.cubes - env.world.tip, axis=1), out=closest)
            if result[2] or result[3]:
                found.append(ending(env, **vars(watched.pop(env))))
        return result

    with swapped(TabletopEnv, reset=resetting, step=stepping):
        yield found


def ending(env: TabletopEnv, start: np.ndarray, closest: np.ndarray) -> str:
    """One of `ENDINGS`, of a single-stage task's episode that is over.

    Args:
        env: As it is at the end.
        start: Cube centres at the start, [3, 3] (m).
        closest: How close the tip came to each cube's centre, [3] (m).
    """
    if env.judge.success:
        return SUCCESS
    (stage,) = env.judge.task.stages
    shift = (env.world.cubes - start)[:, :2]
    moved = np.linalg.norm(shift, axis=1)
    if moved.max() <= STAY_TOLERANCE:
        return NO_CUBE if closest.min() > NEAR else NAMED_CUBE if closest.argmin() == stage.cube else OTHER_CUBE
    if moved.argmax() != stage.cube:
        return OTHER_CUBE
    asked = stage.verb in DIRECTIONS and shift[stage.cube] @ DIRECTIONS[stage.verb] >= math.sqrt(0.5) * moved.max()
    return NAMED_CUBE if asked else OTHER_WAY
