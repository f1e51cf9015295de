"""The environment as LeRobot's evaluation sees it."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lerobot")

import torch
from lerobot.envs.factory import make_env, make_env_config
from lerobot.envs.utils import NEW_ROLLOUT_OPTION, env_to_policy_features, preprocess_observation

from lerobot_wam.sim import config_tabletop
from lerobot_wam.sim.arms import ARMS
from lerobot_wam.sim.env import TabletopEnv
from lerobot_wam.sim.experts import TaskExpert
from lerobot_wam.sim.tasks import select_tasks


@pytest.fixture
def env() -> Iterator[TabletopEnv]:
    env = TabletopEnv()
    yield env
    env.close()


def test_a_seed_fixes_everything(env: TabletopEnv):
    twin = TabletopEnv()
    rng = np.random.default_rng(0)
    for seed in (3, 5):
        first, _ = env.reset(seed=seed)
        second, _ = twin.reset(seed=seed)
        for _ in range(4):
            assert np.array_equal(first["pixels"]["front"], second["pixels"]["front"])
            assert np.array_equal(first["agent_pos"], second["agent_pos"])
            action = first["agent_pos"] + rng.normal(0, 0.1, 6)
            first, second = env.step(action)[0], twin.step(action)[0]
    assert env.task_description == twin.task_description
    other, _ = twin.reset(seed=17)
    assert not np.array_equal(first["pixels"]["front"], other["pixels"]["front"])


def test_seeds_cycle_through_the_tasks(env: TabletopEnv):
    said = []
    for seed in range(24):
        env.reset(seed=seed)
        said.append(env.task_description)
    assert len(set(said[:12])) == 12
    assert said[:12] == said[12:]


@pytest.mark.parametrize("arm", ARMS)
def test_the_observation_fits_its_space(arm: str):
    env = TabletopEnv(arm=arm, image_size=48)
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert info["is_success"] is False
    assert env.render().shape == (256, 256, 3)
    env.close()


def test_the_expert_ends_the_episode_with_success_and_full_return(env: TabletopEnv):
    env.reset(seed=0)
    expert, total = TaskExpert(env.world), 0.0
    for _ in range(50):
        _, reward, terminated, truncated, info = env.step(expert.action(env.judge))
        total += reward
        if terminated or truncated:
            break
    assert terminated
    assert info["is_success"]
    assert total == pytest.approx(1.0)


def test_a_disturbed_cube_ends_the_episode_without_success(env: TabletopEnv):
    env.reset(seed=0)
    stage = env.judge.stage
    assert stage is not None
    other = (stage.cube + 1) % 3
    env.world.data.qpos[env.world.scene.cube_qpos[other]] += 0.03
    _, _, terminated, _, info = env.step(env.world.joints)
    assert terminated
    assert info["disturbed"]
    assert not info["is_success"]


def test_the_time_limit_truncates():
    env = TabletopEnv(episode_length=2)
    env.reset(seed=0)
    assert not env.step(env.world.joints)[3]
    assert env.step(env.world.joints)[3]


def test_two_cameras_at_twenty_steps_a_second():
    config = make_env_config("wam_tabletop", cameras=("front", "side"), fps=20, image_size=32)
    vector = make_env(config, n_envs=1)["wam_tabletop"][0]
    batch = preprocess_observation(vector.reset(seed=[0])[0])
    assert set(batch) == {"observation.images.front", "observation.images.side", "observation.state"}
    assert env_to_policy_features(config)["observation.images.side"].shape == (3, 32, 32)
    assert vector.call("_max_episode_steps") == (100,)
    assert vector.unwrapped.metadata["render_fps"] == 20
    vector.close()


def test_evaluation_controls():
    wrong = TabletopEnv(instruction="wrong")
    for seed in range(12):
        wrong.reset(seed=seed)
        real = select_tasks("single")[seed]
        assert wrong.task == real.name
        assert wrong.task_description != real.instruction
        assert wrong.task_description in {task.instruction for task in select_tasks("single")}
    alone = TabletopEnv(task="left-red", instruction="wrong")
    assert alone.task_description != "push the red cube to the left"
    assert TabletopEnv(instruction="none").task_description == ""
    dark = TabletopEnv(blank_image=True)
    assert dark.reset(seed=0)[0]["pixels"]["front"].max() == 0
    assert dark.render().max() > 0


def test_bad_options_and_actions_are_refused(env: TabletopEnv):
    with pytest.raises(ValueError, match="instruction is 'maybe'; expected one of true, wrong, none"):
        TabletopEnv(instruction="maybe")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shape \(7,\); arm 'viperx' expects \(6,\)"):
        env.step(np.zeros(7))
    with pytest.raises(ValueError, match="finite"):
        env.step(np.full(6, np.nan))


def test_through_lerobot():
    config = make_env_config("wam_tabletop", task="all", arm="so101")
    features = env_to_policy_features(config)
    assert features["observation.images.front"].shape == (3, 64, 64)
    assert features["observation.state"].shape == features["action"].shape == (5,)
    vector = make_env(config, n_envs=4)["wam_tabletop"][0]
    observation, _ = vector.reset(seed=[0, 1, 2, 3], options={NEW_ROLLOUT_OPTION: True})
    batch = preprocess_observation(observation)
    assert set(batch) == {"observation.images.front", "observation.state"}
    assert batch["observation.images.front"].shape == (4, 3, 64, 64)
    assert batch["observation.state"].shape == (4, 5)
    assert batch["observation.state"].dtype == torch.float32
    assert len(set(vector.call("task_description"))) == 4
    assert vector.call("_max_episode_steps") == (110,) * 4
    assert vector.unwrapped.metadata["render_fps"] == 10
    experts = [TaskExpert(env.unwrapped.world) for env in vector.envs]
    done = np.zeros(4, bool)
    for _ in range(110):
        actions = [expert.action(env.unwrapped.judge) for expert, env in zip(experts, vector.envs, strict=True)]
        _, _, terminated, truncated, info = vector.step(np.stack(actions))
        done |= terminated | truncated
        if done.all():
            break
    assert info["is_success"].tolist() == [True] * 4
    vector.close()


def test_the_configuration_loads_no_simulator():
    # Read, not run: importing LeRobot afresh takes longer than all other tests here.
    module = ast.parse(Path(config_tabletop.__file__).read_text())
    imported = {node.module for node in module.body if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in module.body if isinstance(node, ast.Import) for name in node.names}
    assert imported == {
        "__future__",
        "dataclasses",
        "functools",
        "typing",
        "gymnasium",
        "lerobot.configs",
        "lerobot.envs.configs",
        "lerobot.utils.constants",
        "lerobot_wam.sim.arms",
        "lerobot_wam.sim.options",
    }


@pytest.mark.skipif(bool(os.environ.get("DISPLAY")), reason="MuJoCo finds the display")
def test_images_work_even_if_mujoco_came_first():
    code = "import mujoco; from lerobot_wam.sim.env import TabletopEnv; e = TabletopEnv(); e.reset(seed=0); e.close()"
    environment = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=environment)
