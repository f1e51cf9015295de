"""The simulated arm and its scripted operator under LeRobot's own commands, in this process."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lerobot")
pytest.importorskip("mujoco")

from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.robots.utils import make_robot_from_config
from lerobot.teleoperators.utils import make_teleoperator_from_config
from lerobot.utils.errors import DeviceNotConnectedError
from lerobot_commands import run

import lerobot_wam.plugin  # noqa: F401
from lerobot_wam.sim.arm_robot import WAMSimArm
from lerobot_wam.sim.config_arm_robot import WAMSimArmConfig
from lerobot_wam.sim.config_expert_teleop import WAMSimExpertConfig
from lerobot_wam.sim.expert_teleop import WAMSimExpert
from lerobot_wam.sim.tasks import Judge, parse_task

TASK = "push the red cube to the left"
SIM = ["--robot.type=wam_sim_arm", "--robot.image_size=32"]
EXPERT = "--teleop.type=wam_sim_expert"


def recording(root: Path, *words: str) -> list[str]:
    return [
        *SIM,
        EXPERT,
        "--dataset.repo_id=local/sim",
        f"--dataset.root={root}",
        "--dataset.fps=10",
        "--dataset.reset_time_s=0",
        "--dataset.video=false",
        "--dataset.push_to_hub=false",
        "--play_sounds=false",
        *words,
    ]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of up to 3 s, with both cameras."""
    root = tmp_path_factory.mktemp("recorded") / "sim"
    words = ["--teleop.tasks=left-red", f"--dataset.single_task={TASK}", "--robot.cameras=[front,side]"]
    run("lerobot-record", *recording(root, *words, "--dataset.num_episodes=2", "--dataset.episode_time_s=3"))
    return root


@pytest.fixture
def last_seen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How each robot stood when LeRobot let go of it."""
    seen: list[dict[str, Any]] = []
    let_go = WAMSimArm.disconnect

    def disconnect(robot: WAMSimArm) -> None:
        seen.append({"joints": robot.world.joints, "cubes": robot.world.cubes, "scenes": robot.scenes_begun})
        let_go(robot)

    monkeypatch.setattr(WAMSimArm, "disconnect", disconnect)
    return seen


def columns(root: Path, episode: int) -> tuple[np.ndarray, np.ndarray]:
    """States and actions of one episode."""
    table = LeRobotDataset("local/sim", root=root).hf_dataset.with_format("numpy")
    rows = table.filter(lambda row: row["episode_index"] == episode)
    return np.stack(rows["observation.state"]), np.stack(rows["action"])


def connected(**options: Any) -> WAMSimArm:
    robot = make_robot_from_config(WAMSimArmConfig(**options))
    assert isinstance(robot, WAMSimArm)
    robot.connect()
    return robot


def test_a_recording_is_that_of_the_built_in_embodiment(recorded: Path):
    dataset = LeRobotDataset("local/sim", root=recorded)
    assert dataset.meta.robot_type == "wam_sim_viperx"
    assert (dataset.fps, dataset.num_episodes) == (10, 2)
    assert list(dataset.meta.tasks.index) == [TASK]
    assert dataset.features["action"]["names"][0] == "waist.pos"
    assert dataset.meta.camera_keys == ["observation.images.front", "observation.images.side"]


@pytest.mark.parametrize("episode", [0, 1])
def test_an_announced_episode_is_the_scene_of_its_number_and_its_task_is_done(recorded: Path, episode: int):
    states, actions = columns(recorded, episode)
    robot = connected(image_size=32, scene=episode)
    judge = Judge(parse_task("left-red"), robot.world.cubes, robot.world.tip)
    for state, action in zip(states, actions, strict=True):
        assert robot.world.joints == pytest.approx(state, abs=1e-4)
        robot.send_action(dict(zip(robot.action_features, action, strict=True)))
        judge.update(robot.world.cubes, robot.world.tip)
    assert judge.success
    robot.disconnect()


def test_replay_ends_where_the_recording_did(recorded: Path, last_seen: list[dict[str, Any]]):
    words = ["--dataset.repo_id=local/sim", f"--dataset.root={recorded}", "--dataset.episode=1", "--play_sounds=false"]
    run("lerobot-replay", *SIM, "--robot.scene=1", *words)
    assert last_seen[0]["joints"] == pytest.approx(columns(recorded, 1)[0][-1], abs=0.02)


def test_teleoperation_goes_from_scene_to_scene(last_seen: list[dict[str, Any]], caplog: pytest.LogCaptureFixture):
    run("lerobot-teleoperate", *SIM, EXPERT, "--teleop.tasks=touch-red,touch-blue", "--teleop_time_s=3")
    assert last_seen[0]["scenes"] > 1
    assert "each takes 1/10 s of simulated time; give 10 to" in caplog.text  # LeRobot's default is 60 Hz


def test_play_moves_cubes_without_a_goal(tmp_path: Path, last_seen: list[dict[str, Any]]):
    words = ["--teleop.mode=play", "--dataset.single_task=play", "--robot.arm=so101"]
    run("lerobot-record", *recording(tmp_path / "p", *words, "--dataset.num_episodes=1", "--dataset.episode_time_s=4"))
    robot = connected(arm="so101", image_size=32)
    assert np.abs(last_seen[0]["cubes"] - robot.world.cubes).max() > 0.02
    assert list(LeRobotDataset("local/sim", root=tmp_path / "p").meta.tasks.index) == ["play"]


def test_a_trembling_robot_executes_more_than_was_asked():
    steady, trembling = connected(image_size=16), connected(image_size=16, noise=0.05)
    target = dict(zip(steady.action_features, steady.world.joints, strict=True))
    assert trembling.send_action(target) == steady.send_action(target)
    assert np.abs(trembling.world.joints - steady.world.joints).max() > 0.01


def test_the_text_of_a_recording_must_be_the_task(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["lerobot-record", "--dataset.single_task=tidy up"])
    with pytest.raises(ValueError, match=r"is 'tidy up', but --teleop\.tasks=single does .* and 11 others; make both"):
        make_teleoperator_from_config(WAMSimExpertConfig())
    make_teleoperator_from_config(WAMSimExpertConfig(mode="play"))


def test_bad_input_is_named():
    expert = WAMSimExpert(WAMSimExpertConfig(robot_id="nobody"))
    with pytest.raises(ValueError, match=r"no wam_sim_arm robot with id 'nobody'.*--teleop\.robot_id"):
        expert.connect()
    with pytest.raises(DeviceNotConnectedError, match="not connected"):
        expert.get_action()
    with pytest.raises(ValueError, match="mode is 'work'; expected one of tasks, play"):
        WAMSimExpertConfig(mode="work")
    with pytest.raises(ValueError, match="fps is 30"):
        WAMSimArmConfig(fps=30)
    robot = connected(image_size=16)
    with pytest.raises(ValueError, match=r"action has elbow\.pos; arm 'viperx' expects waist\.pos, "):
        robot.send_action({"elbow.pos": 0.0})
    with pytest.raises(ValueError, match="finite"):
        robot.send_action(dict.fromkeys(robot.action_features, float("nan")))
    robot.disconnect()
    with pytest.raises(DeviceNotConnectedError, match="not connected"):
        robot.get_observation()


SMALL: dict[str, list[str]] = {
    "lerobot-record": ["--robot.image_size=32", "--dataset.num_episodes=2", "--dataset.episode_time_s=2"],
    "lerobot-train": [
        *("--steps=2", "--batch_size=2", "--num_workers=0", "--policy.device=cpu", "--policy.image_size=[32,32]"),
        *("--policy.dim=32", "--policy.num_heads=2", "--policy.num_layers=1", "--policy.ffn_dim=32"),
        *("--policy.freq_dim=16", "--policy.text_dim=16", "--policy.text_length=8", "--policy.action_hidden=16"),
        *("--policy.num_inference_steps=2", "--policy.max_chunks=1", "--policy.drop_n_last_frames=8"),
    ],
    "lerobot-eval": ["--eval.n_episodes=2", "--eval.batch_size=2", "--env.image_size=32", "--env.episode_length=9"],
    "lerobot-rollout": ["--robot.image_size=32", "--duration=2", "--return_to_initial_position=false"],
}


def test_the_readmes_commands_for_a_new_robot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_seen: list[dict[str, Any]]
):
    """As written, from nothing to a policy that drives the robot; only the sizes are small."""
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    section = text.split("## A new robot in three commands\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, flags=re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    assert [words[0] for words in lines[:4]] == ["lerobot-record", "lerobot-train", "lerobot-eval", "lerobot-rollout"]
    monkeypatch.chdir(tmp_path)
    for words in lines[:4]:
        run(*words, *SMALL[words[0]])
    assert list(tmp_path.glob("outputs/eval/ur5e/**/eval_info.json"))
    arm = connected(arm="ur5e", image_size=16)
    assert np.abs(last_seen[-1]["joints"] - arm.world.joints).max() > 1e-3
