"""`lerobot-wam drive` on the simulated robot: LeRobot's own rollout here, the model behind a real server."""

import ast
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("mujoco")

from lerobot.datasets import LeRobotDataset
from lerobot.policies import make_pre_post_processors
from lerobot.policies.rtc import RTCConfig
from lerobot_commands import in_process, run
from served_policies import Served, served
from tiny_policies import build_policy, observe, write_dataset

from lerobot_wam.cli.main import main
from lerobot_wam.drivers import Driver
from lerobot_wam.embodiments.spec import load_embodiment
from lerobot_wam.guard.contract import Contract
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.remote.configuration_remote import WAMRemoteConfig
from lerobot_wam.remote.driving import check_contract, drive
from lerobot_wam.remote.modeling_remote import WAMRemotePolicy
from lerobot_wam.serving.client import WAMClient
from lerobot_wam.sim.arm_robot import WAMSimArm

SOURCE = Path(__file__).parents[2] / "src/lerobot_wam"
ARM = ("--robot.type=wam_sim_arm", "--robot.image_size=32", "--task=push the red cube to the left")
STILL = ("--return_to_initial_position=false", "--play_sounds=false")
LOOKS = 20


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> WAMPolicy:
    return build_policy(write_dataset(tmp_path_factory.mktemp("far") / "arm")).eval()


@pytest.fixture(scope="module")
def server(policy: WAMPolicy) -> Iterator[Served]:
    with served(policy) as running:
        yield running


@dataclass
class Watched:
    """An arm of which everything is seen.

    Attributes:
        at: What happens before a look at it, by the look's number.
        sent: Joint targets that reached it.
        looks: How often it was looked at; after the last look somebody presses Ctrl-C.
        last: Number of the last look.
    """

    at: dict[int, Callable[[], Any]] = field(default_factory=dict)
    sent: list[dict[str, float]] = field(default_factory=list)
    looks: int = 0
    last: int = LOOKS


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched = Watched()
    look, send = WAMSimArm.get_observation, WAMSimArm.send_action

    def get_observation(robot: WAMSimArm) -> dict[str, Any]:
        watched.at.get(watched.looks, lambda: None)()
        watched.looks += 1
        if watched.looks > watched.last:
            raise KeyboardInterrupt
        return look(robot)

    def send_action(robot: WAMSimArm, action: dict[str, Any]) -> dict[str, Any]:
        watched.sent.append(action)
        return send(robot, action)

    monkeypatch.setattr(WAMSimArm, "get_observation", get_observation)
    monkeypatch.setattr(WAMSimArm, "send_action", send_action)
    return watched


def drive_here(server: Served, *words: str) -> None:
    with in_process("lerobot-rollout"):
        drive([*ARM, *STILL, *words], server.url)


def remote(server: Served, **settings: Any) -> WAMRemotePolicy:
    with WAMClient(server.url) as client:
        embodiment = client.welcome["embodiment"]
    return WAMRemotePolicy(WAMRemoteConfig(server=server.url, embodiment=embodiment, device="cpu", **settings))


def in_pixels(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with pictures as cameras give them: whole levels of 255."""
    return {k: (v * 255).round() / 255 if k.startswith("observation.images") else v for k, v in batch.items()}


def test_near_and_far_send_the_arm_the_same(server: Served, policy: WAMPolicy, arm: Watched, tmp_path: Path):
    policy.save_pretrained(tmp_path)
    for pipeline in make_pre_post_processors(policy.config, dataset_stats={}):
        pipeline.save_pretrained(tmp_path)
    run("lerobot-rollout", f"--policy.path={tmp_path}", "--policy.device=cpu", "--fps=10", *ARM, *STILL)
    near, arm.sent, arm.looks = arm.sent, [], 0
    drive_here(server)
    assert len(near) > LOOKS - 3
    assert arm.sent == near


def test_far_chunks_of_real_time_chunking_are_those_of_the_policy(server: Served, policy: WAMPolicy):
    far, batch = remote(server), in_pixels(observe(policy, seed=3))
    for one in (far, policy):
        one.config.rtc_config = RTCConfig(execution_horizon=6)
        one.init_rtc_processor()
    try:
        first = far.predict_action_chunk(batch)
        torch.testing.assert_close(first, policy.predict_action_chunk(batch), rtol=0, atol=0)
        rest = {"inference_delay": 2, "prev_chunk_left_over": first[0, 3:]}
        agreed = far.predict_action_chunk(batch, **rest)
        torch.testing.assert_close(agreed, policy.predict_action_chunk(batch, **rest), rtol=0, atol=0)
        assert not torch.equal(agreed, first)
    finally:
        policy.config.rtc_config = None
        policy.init_rtc_processor()


def test_a_far_rollout_runs_ahead_of_the_arm(
    server: Served, arm: Watched, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    asked: list[bool] = []
    plan = WAMClient.plan
    monkeypatch.setattr(WAMClient, "plan", lambda *args: asked.append(args[4] is not None) or plan(*args))
    arm.last = 40
    drive_here(server, "--inference.type=rtc", "--inference.queue_threshold=4", "--inference.rtc.execution_horizon=6")
    assert not asked[0]
    assert any(asked)
    assert len(arm.sent) > 10
    assert not re.search("RTC inference error|Fatal", caplog.text)


def test_a_rollout_holds_while_the_server_is_killed_and_goes_on_when_it_is_back(
    policy: WAMPolicy, arm: Watched, caplog: pytest.LogCaptureFixture
):
    first, later = Served(policy), []
    arm.last = 600

    def look_for_the_end() -> None:
        arm.last = arm.looks if "actions again after" in caplog.text else 600

    arm.at = {12: first.kill, 20: lambda: later.append(Served(policy, port=first.port))}
    arm.at |= dict.fromkeys(range(21, 600), look_for_the_end)
    with caplog.at_level(logging.WARNING):
        drive_here(first)
    later[0].stop()
    assert "no actions: the connection was lost; holding still" in caplog.text
    assert "actions again after" in caplog.text
    targets = np.array([list(action.values()) for action in arm.sent])
    contract = Contract.of(load_embodiment("wam_sim_viperx"))
    np.testing.assert_array_equal(targets, contract.limited(targets))
    np.testing.assert_array_equal(targets[16], targets[18])  # the chunk of steps 8 to 15 is over


def test_a_far_rollout_in_real_time_chunking_survives_a_killed_server(
    policy: WAMPolicy, arm: Watched, caplog: pytest.LogCaptureFixture
):
    first, later, sent = Served(policy), [], []
    arm.last = 600

    def restart() -> None:
        later.append(Served(policy, port=first.port))
        sent.append(len(arm.sent))

    def look_for_the_end() -> None:
        arm.last = arm.looks if len(arm.sent) > sent[0] + 3 else 600

    arm.at = {12: first.kill, 30: restart} | dict.fromkeys(range(31, 600), look_for_the_end)
    drive_here(first, "--inference.type=rtc", "--inference.queue_threshold=4", "--inference.rtc.execution_horizon=6")
    later[0].stop()
    assert len(arm.sent) > sent[0] + 3
    assert "Fatal" not in caplog.text


@pytest.fixture
def recorded(policy: WAMPolicy, arm: Watched, tmp_path: Path) -> tuple[Path, Path]:
    """A recording whose server dies in the third episode, and a copy of its files as they were at that moment."""
    dying, data, copy = Served(policy), tmp_path / "data", tmp_path / "copy"
    arm.last = 600

    def die() -> None:
        if len(list(data.glob("meta/episodes/*/*.parquet"))) == 2 and not copy.exists():
            shutil.copytree(data, copy)
            dying.kill()

    arm.at = dict.fromkeys(range(600), die)
    words = ("--strategy.type=episodic", "--strategy.reset_to_initial_position=false", "--policy.max_outage_s=0.2")
    names = ("--dataset.repo_id=local/rollout_far", f"--dataset.root={data}", "--dataset.push_to_hub=false")
    episodes = ("--dataset.num_episodes=9", "--dataset.episode_time_s=0.5", "--dataset.reset_time_s=0")
    with pytest.raises(ConnectionError, match="no actions from ws://"):
        drive_here(dying, *words, *names, *episodes)
    return data, copy


def test_finished_episodes_survive_the_servers_death_and_a_kill(recorded: tuple[Path, Path]):
    for root, episodes in zip(recorded, (3, 2), strict=True):
        dataset = LeRobotDataset("local/rollout_far", root=root, video_backend="pyav")
        assert dataset.num_episodes >= episodes
        assert dataset.fps == 10
        assert dataset[dataset.num_frames - 1]["observation.images.front"].shape == (3, 32, 32)
        assert [int(dataset[i]["index"]) for i in range(dataset.num_frames)] == list(range(dataset.num_frames))


def test_a_connection_is_one_robots(server: Served, policy: WAMPolicy):
    with pytest.raises(ValueError, match="batch of 2 robots, expected 1"):
        remote(server).select_action(observe(policy, robots=2))


def test_the_guard_hears_of_a_far_policy_what_it_hears_of_a_near_one(server: Served, policy: WAMPolicy):
    far = remote(server, guard="ramp", guard_max_age_s=1.5)
    pre, post = make_pre_post_processors(far.config)
    pre.reset()
    batch = pre(in_pixels(observe(policy)))
    post(far.select_action(batch))
    answer = post.steps[-1].relative_step.note.answer
    assert answer.settings == far.config.guard_settings
    assert answer.spec.name == "wam_sim_viperx"
    assert answer.due == [far.client.due]


def test_a_refused_action_drops_the_rest_of_the_far_chunk(server: Served, policy: WAMPolicy):
    far = remote(server)
    pre, post = make_pre_post_processors(far.config)
    batch = in_pixels(observe(policy))
    far.select_action(pre(batch))
    chunk = far.client.chunk
    post.steps[-1].relative_step.refused = (0,)
    far.select_action(pre(batch))
    assert far.client.chunk is not chunk


def test_no_model_code_is_loaded_where_a_robot_is_driven():
    """Follows what is imported when modules load; what LeRobot itself loads is not ours to say."""
    waiting, seen = [f"remote.{name}" for name in ("configuration_remote", "modeling_remote", "driving")], set()
    foreign = set()
    while waiting:
        module = waiting.pop()
        path = SOURCE / module.replace(".", "/")
        file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        if module in seen or not file.is_file():
            continue
        seen.add(module)
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            foreign |= {name.partition(".")[0] for name in names}
            waiting += [name.removeprefix("lerobot_wam.") for name in names if name.startswith("lerobot_wam.")]
    assert {"commitment", "serving.client", "processor_wam"} <= seen
    heavy = re.compile(
        r"runtime|diffusion|modeling_wam|frozen|batches|model\.(?!config)|serving\.(?!client|limits|link|protocol)"
    )
    assert [module for module in seen if heavy.match(module)] == []
    assert foreign & {"diffusers", "transformers", "mujoco", "peft"} == set()


SPEC = load_embodiment("wam_sim_viperx")
SIZE = {"observation.images.front": [32, 32]}


def driver(cameras: tuple[str, ...] = ("front",), names: tuple[str, ...] = SPEC.action_names) -> Driver:
    vector = {"dtype": "float32", "shape": (len(names),), "names": list(names)}
    views = {f"observation.images.{camera}": {"dtype": "image", "shape": (32, 32, 3)} for camera in cameras}
    return Driver("my_arm", {"action": vector, "observation.state": vector, **views})


def test_a_camera_of_another_name_is_refused_until_it_is_mapped():
    found = driver(("cam0",))
    with pytest.raises(ValueError, match=re.escape('"observation.images.cam0": "observation.images.front"')):
        check_contract(SPEC, found, {}, SIZE)
    check_contract(SPEC, found, {"observation.images.cam0": "observation.images.front"}, SIZE)


@pytest.mark.parametrize(
    ("names", "message"),
    [(SPEC.action_names[::-1], "in another order: wrist_rotate"), (("a.pos", "b.pos"), "other joints: a.pos, b.pos")],
)
def test_joints_that_are_not_the_models_are_refused(names: tuple[str, ...], message: str):
    with pytest.raises(ValueError, match=message):
        check_contract(SPEC, driver(names=names), {}, SIZE)


def test_pictures_of_another_size_are_announced(caplog: pytest.LogCaptureFixture):
    check_contract(SPEC, driver(), {}, {"observation.images.front": [64, 48]})
    assert "32x32 and 64x48 pixels; every one is resized" in caplog.text


def test_another_rate_than_the_models_is_refused_before_the_arm_moves(
    server: Served, arm: Watched, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        drive_here(server, "--fps=30")
    assert "--fps is 30, but the policy was trained on 'wam_sim_viperx' at 10" in capsys.readouterr().err
    assert arm.looks == 0


def test_a_drive_without_a_robot_or_a_server_is_one_readable_line(capsys: pytest.CaptureFixture[str]):
    assert main(["drive", "--server=ws://127.0.0.1:9"]) == 2
    assert "error: no robot: give --robot.type=NAME" in capsys.readouterr().err
    assert main(["drive", "--server=ws://127.0.0.1:9", "--robot.type=wam_sim_arm"]) == 2
    assert "error: no server answers at ws://127.0.0.1:9/robot" in capsys.readouterr().err
