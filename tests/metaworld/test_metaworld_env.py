"""Meta-World as LeRobot's evaluation sees it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lerobot")
pytest.importorskip("metaworld")

from lerobot.envs.factory import make_env, make_env_config
from lerobot.envs.utils import NEW_ROLLOUT_OPTION, env_to_policy_features, preprocess_observation

from lerobot_wam.metaworld import config_metaworld
from lerobot_wam.metaworld.env import MetaWorldEnv
from lerobot_wam.metaworld.tasks import select_tasks
from lerobot_wam.metaworld.world import Expert

TASKS = "handle-press-v3,drawer-close-v3"


@pytest.fixture(scope="module")
def env() -> Iterator[MetaWorldEnv]:
    env = MetaWorldEnv(TASKS, image_size=48)
    yield env
    env.close()


def test_seeds_cycle_through_the_tasks_and_fix_the_scene(env: MetaWorldEnv):
    first, _ = env.reset(seed=0)
    assert (env.task, env.task_description) == ("handle-press-v3", "Press a handle down")
    env.reset(seed=1)
    assert (env.task, env.task_description) == ("drawer-close-v3", "Push and close a drawer")
    again, _ = env.reset(seed=0)
    other, _ = env.reset(seed=2)
    assert np.array_equal(first["pixels"]["corner"], again["pixels"]["corner"])
    assert not np.array_equal(first["pixels"]["corner"], other["pixels"]["corner"])


def test_the_observation_fits_its_space_and_holds_no_object(env: MetaWorldEnv):
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert observation["pixels"]["corner"].shape == (48, 48, 3)
    assert observation["agent_pos"].shape == (4,)
    assert info == {"is_success": False, "task_progress": 0.0}
    assert env.render().shape == (256, 256, 3)


def test_the_expert_ends_the_episode_with_success_and_full_return(env: MetaWorldEnv):
    env.reset(seed=1)
    expert, total = Expert(env.world), 0.0
    for _ in range(80):
        _, reward, terminated, truncated, info = env.step(expert.action())
        total += reward
        if terminated or truncated:
            break
    assert terminated
    assert info["is_success"]
    assert total == pytest.approx(1.0)


def test_the_time_limit_truncates():
    env = MetaWorldEnv("handle-press-v3", episode_length=2)
    env.reset(seed=0)
    assert not env.step(np.zeros(4))[3]
    assert env.step(np.zeros(4))[3]


def test_bad_options_and_actions_are_refused(env: MetaWorldEnv):
    with pytest.raises(ValueError, match="episode_length is 126; expected 1 to 125"):
        MetaWorldEnv(TASKS, episode_length=126)
    with pytest.raises(ValueError, match=r"shape \(7,\); expected \(4,\): x, y, z, gripper"):
        env.step(np.zeros(7))
    with pytest.raises(ValueError, match="finite"):
        env.step(np.full(4, np.nan))
    with pytest.raises(ValueError, match="fps is 80; Meta-World runs here at 20"):
        make_env_config("wam_metaworld", fps=80)


def test_through_lerobot():
    config = make_env_config("wam_metaworld", task=TASKS, image_size=32)
    features = env_to_policy_features(config)
    assert features["observation.images.corner"].shape == (3, 32, 32)
    assert features["observation.state"].shape == features["action"].shape == (4,)
    vector = make_env(config, n_envs=3)["wam_metaworld"][0]
    observation, _ = vector.reset(seed=[0, 1, 2], options={NEW_ROLLOUT_OPTION: True})
    batch = preprocess_observation(observation)
    assert batch["observation.images.corner"].shape == (3, 3, 32, 32)
    assert set(batch) == {"observation.images.corner", "observation.state"}
    first, second = (task.instruction for task in select_tasks(TASKS))
    assert vector.call("task_description") == (first, second, first)
    assert vector.unwrapped.metadata["render_fps"] == 20
    worlds = [env.unwrapped.world for env in vector.envs]
    assert len({id(world) for world in worlds}) == 3
    experts, done = [Expert(world) for world in worlds], np.zeros(3, bool)
    for _ in range(80):
        _, _, terminated, _, info = vector.step(np.stack([expert.action() for expert in experts]))
        done |= terminated
        if done.all():
            break
    assert info["is_success"].tolist() == [True] * 3
    vector.close()


def test_the_configuration_loads_no_simulator():
    # Read, not run: importing LeRobot afresh takes longer than all other tests here.
    module = ast.parse(Path(config_metaworld.__file__).read_text())
    ours = {node.module for node in module.body if isinstance(node, ast.ImportFrom) and "lerobot_wam" in node.module}
    assert ours == {"lerobot_wam.metaworld"}  # of which it takes the options
