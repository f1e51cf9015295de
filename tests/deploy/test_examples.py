"""The scripts of examples/ for robots, command by command in this process: as written, only the sizes are small."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mujoco")

from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies import make_pre_post_processors
from lerobot_commands import in_process, run
from served_policies import Served, served
from shell_commands import commands
from tiny_policies import build_policy, write_dataset

from lerobot_wam.cli import serve
from lerobot_wam.cli.main import main
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.serving.server import Server
from lerobot_wam.sim.arm_robot import WAMSimArm

EXAMPLES = Path(__file__).parents[2] / "examples"
TASK = "push the red cube to the left"
ROBOT = "--robot.type=wam_sim_arm --robot.arm=so101 --robot.image_size=32"
VIPERX = "--robot.type=wam_sim_arm --robot.image_size=32"
SMALL: dict[str, list[str]] = {
    "lerobot-train": ["--num_workers=0", "--dataloader_multiprocessing_context=null", "--policy.device=cpu"],
    "lerobot-rollout": ["--return_to_initial_position=false"],
    "serve": ["--policy.device=cpu"],
    "drive": ["--return_to_initial_position=false"],
    "adapt": ["--eval-every=1", "--windows=4", "--dreams=1", "--num_workers=0", "--device=cpu"],
}


def play(script: str, **given: str | Path) -> None:
    """Run the commands of an example one after the other, with these values for its variables."""
    text = (EXAMPLES / script).read_text(encoding="utf-8")
    for program, *words in commands(text, {name: str(value) for name, value in given.items()}):
        if program == "lerobot-wam":
            with in_process("lerobot-rollout"):
                assert main([*words, *SMALL.get(words[0], [])]) == 0
        elif program.startswith("lerobot-"):
            run(program, *words, *SMALL.get(program, []))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny policy that knows another robot."""
    folder = tmp_path_factory.mktemp("examples")
    policy = build_policy(write_dataset(folder / "viperx", (20, 20)), drop_n_last_frames=2)
    policy.save_pretrained(folder / "policy")
    for pipeline in make_pre_post_processors(policy.config, dataset_stats={}):
        pipeline.save_pretrained(folder / "policy")
    return folder / "policy"


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Served]]:
    """What `lerobot-wam serve` starts, in the background."""
    started: list[Served] = []
    with ExitStack() as stack:

        async def start(server: Server) -> None:
            started.append(stack.enter_context(served(server.policy, **asdict(server.settings))))

        monkeypatch.setattr(serve, "_serve", start)
        yield started


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """What reaches the arms."""
    actions: list[dict[str, float]] = []
    send = WAMSimArm.send_action
    monkeypatch.setattr(WAMSimArm, "send_action", lambda arm, action: actions.append(action) or send(arm, action))
    return actions


def moved(actions: list[dict[str, float]]) -> float:
    """How far the first joint was sent (rad)."""
    return max(abs(action["shoulder_pan.pos"] - actions[0]["shoulder_pan.pos"]) for action in actions)


def test_from_recordings_of_play_and_a_task_to_a_driven_robot(
    trained: Path, tmp_path: Path, sent: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    sizes = {"PLAY_EPISODES": "2", "PLAY_SECONDS": "3", "TASK_EPISODES": "2", "TASK_SECONDS": "2.5"}
    play("record_play_so101.sh", ROBOT=ROBOT, **sizes)
    for name, task in (("play", "play"), ("task", TASK)):
        data = LeRobotDataset(f"local/{name}", root=tmp_path / "outputs/so101" / name)
        assert (data.num_episodes, data.meta.robot_type, list(data.meta.tasks.index)) == (2, "wam_sim_so101", [task])

    play("adapt.sh", POLICY=trained, STEPS="2", BATCH="2")
    last = Path("outputs/adapted/task/checkpoints/last/pretrained_model")
    policy = WAMPolicy.from_pretrained(last)
    assert sorted(policy.config.embodiments) == ["wam_sim_so101", "wam_sim_viperx"]

    for engine in ("--inference.type=sync", "--inference.type=rtc --inference.queue_threshold=4"):
        sent.clear()
        play("deploy_near.sh", ROBOT=ROBOT, ENGINE=engine, DURATION="4")
        assert len(sent) > 2
        assert moved(sent) > 1e-3


def test_a_served_policy_drives_one_robot_and_several(
    trained: Path, servers: list[Served], sent: list[dict[str, float]]
):
    given: dict[str, Any] = {"POLICY": trained, "ROBOT": VIPERX, "DURATION": "3"}
    play("deploy_far.sh", **given, PORT=free_port())
    assert len(sent) > 2
    play("serve_several_robots.sh", **given, PORT=free_port())
    far, several = (one.server for one in servers)
    assert [one.settings.dashboard for one in (far, several)] == [False, True]
    driven = [[r for r in one.robots._robots.values() if r.seat.session.chunks] for one in (far, several)]
    assert [len(robots) for robots in driven] == [1, 3]
