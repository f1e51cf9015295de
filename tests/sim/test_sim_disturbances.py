"""What happens in the midst of an episode: when, to whom, and that nobody else notices."""

import numpy as np
import pytest

from lerobot_wam.sim.disturbances import FIRST, LAST, Disturbance
from lerobot_wam.sim.env import TabletopEnv
from lerobot_wam.sim.experts import TaskExpert
from lerobot_wam.sim.tasks import Judge, parse_task

SEED = 1


def hold_still(env: TabletopEnv, steps: int) -> np.ndarray:
    """Hold the arm still for some steps of episode `SEED`; the last image."""
    seen, _ = env.reset(seed=SEED)
    for _ in range(steps):
        seen = env.step(env.world.joints)[0]
    return seen["pixels"]["front"]


def test_the_step_depends_on_the_seed_alone():
    steps = [Disturbance(kind, seed).step for seed in range(200) for kind in ("none", "push", "camera", "lag")]  # type: ignore[arg-type]
    assert all(len({*steps[row : row + 4]}) == 1 for row in range(0, len(steps), 4))
    assert set(steps) == {*range(FIRST, LAST + 1)}


def test_a_push_moves_the_named_cube_and_the_stage_is_judged_from_where_it_is():
    env = TabletopEnv("left-red", image_size=16, disturbance="push")
    env.reset(seed=SEED)
    before = env.world.cubes
    for step in range(1, env.upset.step + 1):
        env.step(env.world.joints)
        moved = np.linalg.norm((env.world.cubes - before)[:, :2], axis=1)
        assert moved[1:].max() < 0.002
        assert (moved[0] > 0.059) == (step == env.upset.step)
    assert moved[0] < 0.101
    assert np.array_equal(env.judge.anchor, env.world.cubes)
    assert env.judge.progress == 0


def test_a_stage_begun_anew_keeps_the_one_before():
    cubes, tip = np.array([[0.0, -0.12, 0.025], [0.0, 0.0, 0.025], [0.0, 0.12, 0.025]]), np.array([-0.2, 0.0, 0.15])
    judge = Judge(parse_task("left-red+away-blue"), cubes, tip)
    cubes[0, 1] -= 0.055
    judge.update(cubes, tip)
    cubes[2, 0] -= 0.03
    judge.update(cubes, tip)
    assert judge.progress == pytest.approx(0.8)
    cubes[2] += [0.07, 0.02, 0]
    judge.restart_stage(cubes, tip)
    assert judge.progress == 0.5
    cubes[2, 0] -= 0.051
    judge.update(cubes, tip)
    assert judge.success


def test_the_return_is_the_progress_even_where_a_push_undoes_it():
    env, undone = TabletopEnv("left-red,away-blue", image_size=16, disturbance="push"), 0
    for seed in range(8):
        env.reset(seed=seed)
        expert, over, total = TaskExpert(env.world), False, 0.0
        while not over:
            _, reward, terminated, truncated, info = env.step(expert.action(env.judge))
            total, over, undone = total + reward, terminated or truncated, undone + (reward < 0)
        assert total == pytest.approx(info["task_progress"])
    assert undone > 0


def test_pushed_cameras_are_one_worlds_own_and_stand_in_place_in_the_next_episode():
    calm, upset = (TabletopEnv("left-red", disturbance=kind) for kind in ("none", "camera"))  # type: ignore[arg-type]
    when = Disturbance("camera", SEED).step
    assert np.array_equal(hold_still(calm, when - 1), hold_still(upset, when - 1))
    pushed = hold_still(upset, when)
    assert not np.array_equal(hold_still(calm, when), pushed)
    assert np.array_equal(upset.world.image(64), upset.world.image(64))
    assert np.array_equal(hold_still(calm, 0), hold_still(upset, 0))


def test_actions_lag_from_the_disturbance_on():
    late, sent = Disturbance("lag", SEED), [np.array([float(step)]) for step in range(30)]
    arrived = [int(late.arriving(action, step)[0]) for step, action in enumerate(sent)]
    lag = 29 - arrived[-1]
    assert 3 <= lag <= 5
    assert arrived[: late.step] == [*range(late.step)]
    assert arrived[late.step + lag :] == [*range(late.step, 30 - lag)]
    assert set(arrived[late.step : late.step + lag]) == {late.step - 1}


def test_an_unknown_disturbance_is_refused():
    with pytest.raises(ValueError, match="disturbance is 'fire'; expected one of none, push, camera, lag"):
        TabletopEnv(disturbance="fire")  # type: ignore[arg-type]
