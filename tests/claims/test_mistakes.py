"""How an episode of a tabletop task ended."""

import numpy as np
import pytest

pytest.importorskip("mujoco")

from benchmarks.claims import mistakes
from lerobot_wam.sim.env import TabletopEnv
from lerobot_wam.sim.experts import TaskExpert
from lerobot_wam.sim.tasks import Judge, parse_task


def played(asked: str, done: str | None, seed: int = 100_000) -> list[str]:
    """Ask for one task and let the expert do another, or nothing."""
    env = TabletopEnv(asked)
    with mistakes._watching() as found:
        env.reset(seed=seed)
        expert, over = TaskExpert(env.world), False
        other = Judge(parse_task(done), env.world.cubes, env.world.tip) if done else None
        while not over:
            action = expert.action(other) if other and not other.success else env.world.joints
            _, _, terminated, truncated, _ = env.step(action)
            if other:
                other.update(env.world.cubes, env.world.tip)
            over = terminated or truncated
        env.reset()  # what an environment begins by itself does not count
        for _ in range(env._max_episode_steps):
            env.step(np.asarray(env.world.joints))
    env.close()
    return found


@pytest.mark.parametrize(
    ("done", "ending"),
    [
        ("left-red", mistakes.SUCCESS),
        ("right-red", mistakes.OTHER_WAY),
        ("touch-red", mistakes.NAMED_CUBE),
        ("touch-green", mistakes.OTHER_CUBE),
        ("left-green", mistakes.OTHER_CUBE),
        (None, mistakes.NO_CUBE),
    ],
)
def test_it_names_the_cube_and_the_way(done: str | None, ending: str):
    assert played("left-red", done) == [ending]


def test_the_environment_is_itself_again():
    reset, step = TabletopEnv.reset, TabletopEnv.step
    with mistakes._watching():
        assert TabletopEnv.step is not step
    assert (TabletopEnv.reset, TabletopEnv.step) == (reset, step)
