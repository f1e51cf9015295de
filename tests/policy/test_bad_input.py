"""Bad input ends in one or two lines that name the thing, what was found, what was expected and the way out."""

import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.scripts import lerobot_train
from tiny_policies import ARM_JOINTS, MOBILE_JOINTS, build_policy, make_batch, observe, tiny_config, write_dataset

from lerobot_wam.command_line import SettingError
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.modeling_wam import WAMPolicy

Train = Callable[..., Path]


def refused(message: str, call: Callable[[], object], kind: type[Exception] = ValueError) -> None:
    """`call` must raise `message` (a regular expression) in at most two lines."""
    with pytest.raises(kind, match=message) as error:
        call()
    assert len(str(error.value).splitlines()) <= 2
    assert len(str(error.value)) < 500


@pytest.fixture
def saved(arm_data: Path, tmp_path: Path) -> Path:
    build_policy(arm_data).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def config_of(folder: Path, *flags: str) -> WAMConfig:
    config = PreTrainedConfig.from_pretrained(folder, cli_overrides=list(flags))
    config.pretrained_path = folder
    return config


def command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *flags: str) -> str:
    """What `lerobot-train` prints of flags that it refuses: draccus' line, then ours; no usage, no traceback."""
    flags = ("--policy.type=wam", "--policy.device=cpu", "--dataset.video_backend=pyav", *flags)
    monkeypatch.setattr(sys, "argv", ["lerobot-train", *flags])
    with pytest.raises(SystemExit) as stop:
        lerobot_train.train()
    assert stop.value.code == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: `policy`:")
    return lines[1].strip().removeprefix("PreTrainedConfig: ")


# Cameras


def test_no_camera_at_all(tmp_path: Path):
    data = write_dataset(tmp_path / "blind", (12,), cameras=())
    refused(
        r"no camera among the inputs \(observation.state\): .* needs observation.images", lambda: build_policy(data)
    )


def test_other_cameras_than_the_embodiment(tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch):
    data = write_dataset(tmp_path / "top", (20,), cameras=("top",))
    message = (
        r"'wam_sim_viperx' needs the camera observation.images.front; the dataset has observation.images.top: rename"
    )
    refused(message, lambda: build_policy(data, embodiment="wam_sim_viperx"))
    refused(message, lambda: build_policy(data, config_of(saved)))
    assert build_policy(data).action_spaces[0].spec.cameras[0].key == "observation.images.top"  # "auto" derives
    flag = '--rename_map={"observation.images.top": "observation.images.front"}'
    monkeypatch.setattr(sys, "argv", ["lerobot-train", flag])
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
    from lerobot.policies import make_policy

    meta = LeRobotDatasetMetadata("local/top", root=data)
    make_policy(config_of(saved), ds_meta=meta, rename_map={"observation.images.top": "observation.images.front"})


def test_a_camera_missing_while_acting(mobile_data: Path):
    policy = build_policy(mobile_data).eval()
    batch = observe(policy)
    del batch["observation.images.wrist"]
    refused(
        r"camera observation.images.wrist is not among the frames \(observation.images.head\): rename it",
        lambda: policy.select_action(batch),
    )


# Time


def test_another_rate_names_the_flags_that_work(tmp_path: Path):
    data = write_dataset(tmp_path / "fast", (64,), fps=30)
    with pytest.raises(ValueError, match=r"runs at 30 steps/s, embodiment 'wam_sim_viperx' expects 10") as error:
        build_policy(data, embodiment="wam_sim_viperx")
    flags = dict(re.findall(r"--policy\.(\w+)=(\d+)", str(error.value)))
    assert flags.keys() == {"video_stride", "chunk_steps"}
    overrides = {name: int(value) for name, value in flags.items()}
    policy = build_policy(data, embodiment="wam_sim_viperx", **overrides).train()
    spec = policy.action_spaces[0].spec
    assert (spec.fps, spec.video_stride, spec.chunk_steps) == (30, 3, 24)
    policy.forward(make_batch(data, policy.config, [0]))[0].backward()
    assert policy.eval().predict_action_chunk(observe(policy)).shape == (1, 24, 6)


def test_one_timing_flag_without_the_other():
    message = r"chunk_steps is 8, expected 24 \(8 video frames per chunk x video_stride 3\): set both"
    refused(message, lambda: tiny_config(video_stride=3), SettingError)


def test_episodes_shorter_than_a_chunk(train: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    short = write_dataset(tmp_path / "short", (7, 8))
    message = r"longest episode has 8 steps, .* last 10: record longer episodes, or set --policy.drop_n_last_frames=0"
    refused(message, lambda: build_policy(short))
    train(short, tmp_path / "masked", tiny_config(drop_n_last_frames=0))
    mixed = write_dataset(tmp_path / "mixed", (7, 20))
    train(mixed, tmp_path / "run", tiny_config())
    assert "Episode 0 has 7 frames" in caplog.text


# Numbers


def test_a_joint_that_never_moves(tmp_path: Path):
    """It trains, and its action stays what it always was."""

    def hold(frame: dict, episode: int, step: int) -> None:
        frame["observation.state"][1] = frame["action"][1] = 0.25

    for robot_type in ("wam_sim_viperx", "unknown"):
        data = write_dataset(tmp_path / robot_type, (20, 20), robot_type=robot_type, change=hold)
        policy = build_policy(data).train()
        loss, _ = policy.forward(make_batch(data, policy.config))
        assert torch.isfinite(loss)
        batch = observe(policy)
        batch["observation.state"][:, 1] = 0.25
        actions = policy.eval().predict_action_chunk(batch)
        assert (actions[..., 1] - 0.25).abs().max() < 0.3


@pytest.mark.parametrize("key", ["observation.state", "action"])
def test_nan_in_the_data(tmp_path: Path, saved: Path, key: str):
    """Refused when the policy is built, from a checkpoint too, and not at some later step."""

    def spoil(frame: dict, episode: int, step: int) -> None:
        if (episode, step) == (1, 3):
            frame[key][2] = np.nan

    data = write_dataset(tmp_path / "nan", (20, 20), change=spoil)
    message = rf"{key} 'elbow.pos' \(index 2\) is nan at step 23, expected a finite number: repair or drop that episode"
    refused(message, lambda: build_policy(data))
    refused(message, lambda: build_policy(data, config_of(saved)))


def test_nan_while_acting(arm_data: Path):
    policy = build_policy(arm_data).eval()
    batch = observe(policy)
    batch["observation.state"][0, 4] = torch.nan
    refused(r"state 'wrist_angle.pos' is nan", lambda: policy.select_action(batch))


@pytest.mark.parametrize("width", [5, 0, None])
def test_state_of_another_robot_while_acting(arm_data: Path, width: int | None):
    policy = build_policy(arm_data).eval()
    batch = observe(policy)
    del batch["observation.state"]
    if width is not None:
        batch["observation.state"] = torch.zeros(1, width)
    message = rf"observation.state has {width or 0} dimensions, embodiment 'wam_sim_viperx' has 6 \(waist.pos, .*: run"
    refused(message, lambda: policy.select_action(batch))


def test_another_robot_than_the_checkpoint(mobile_data: Path, saved: Path, tmp_path: Path):
    data = write_dataset(tmp_path / "three", (20,), joints=MOBILE_JOINTS)
    message = r"is 3-dimensional \(base.pos, lift.pos, gripper.pos\), embodiment 'wam_sim_viperx' expects 6"
    refused(rf"{message} .*: give .* with `lerobot-wam adapt`", lambda: build_policy(data, config_of(saved)))


def test_more_joints_than_the_model(tmp_path: Path):
    data = write_dataset(tmp_path / "wide", (20,), robot_type="wide", joints=[*ARM_JOINTS, "a", "b"])
    refused(r"8 action dimensions, the model 6: set --policy.action_dim=8", lambda: build_policy(data, action_dim=6))
    refused(r"8 state dimensions, the model 6: set --policy.state_dim=8", lambda: build_policy(data, state_dim=6))


# Fallbacks that are announced


def test_images_of_another_size_are_resized(
    saved: Path, arm_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    data = write_dataset(tmp_path / "large", (20,), size=48)
    policy = build_policy(data, config_of(saved)).train()
    caplog.clear()
    with caplog.at_level(logging.WARNING, "lerobot_wam"):
        for _ in range(3):
            policy.forward(make_batch(data, policy.config))
        batch = observe(policy.eval()) | {"observation.images.front": torch.rand(1, 3, 48, 48)}
        policy.select_action(batch)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("lerobot_wam")]
    assert said == ["observation.images.front is 48x48 pixels, the policy was trained on 32x32: every frame is resized"]
    assert policy._sessions[0].frames[0].shape == (3, 32, 32)


def test_no_task_text_is_an_empty_instruction(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    data = write_dataset(tmp_path / "mute", (20,), tasks=lambda episode, step: "")
    policy = build_policy(data).train()
    batch = make_batch(data, policy.config)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "lerobot_wam"):
        loss, _ = policy.forward(batch)
        del batch["task"]
        assert policy.forward(batch)[0] == loss
        acting = observe(policy.eval(), task="")
        action = policy.select_action(acting)
        policy.reset()
        del acting["task"]
        assert torch.equal(policy.select_action(acting), action)
    assert [r.getMessage() for r in caplog.records if r.name.startswith("lerobot_wam")] == [
        "no task text: the policy is told nothing to do (an empty instruction)"
    ]


# Settings


def test_unknown_names():
    refused(r"unknown preset 'mini': choose one of nano, ", lambda: WAMConfig(preset="mini"), SettingError)
    message = r"unknown embodiment 'wam_sim_viper': did you mean 'wam_sim_viperx'\?"
    refused(message, lambda: tiny_config(embodiment="wam_sim_viper"), SettingError)
    refused(r"embodiment file my.yaml does not exist", lambda: tiny_config(embodiment="my.yaml"), SettingError)


def test_unknown_embodiment_of_a_checkpoint(saved: Path):
    message = r"unknown embodiment 'so101': this checkpoint knows wam_sim_viperx"
    refused(message, lambda: config_of(saved, "--embodiment=so101"), SettingError)


def test_sizes_that_cannot_be(arm_data: Path):
    refused(r"given_probability is 0.7; above 0 needs", lambda: tiny_config(given_probability=0.7), SettingError)
    refused(r"image_size \(40, 40\) must be a multiple of 16", lambda: tiny_config(image_size=(40, 40)), SettingError)
    refused(r"dim 33 must be an even multiple of num_heads 2", lambda: tiny_config(dim=33), SettingError)
    refused(r"n_action_steps is 9; expected 1..8", lambda: tiny_config(n_action_steps=9), SettingError)
    refused(r"max_chunks is 0", lambda: tiny_config(max_chunks=0), SettingError)


def test_the_command_line_prints_two_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, arm_data: Path
):
    where = ["--dataset.repo_id=local/arm", f"--dataset.root={arm_data}"]
    line = command_line(monkeypatch, capsys, *where, "--policy.preset=mini")
    assert line == "unknown preset 'mini': choose one of nano, wan2.2-5b, wan2.1-14b."
    line = command_line(monkeypatch, capsys, *where, "--policy.embodiment=robot")
    assert line.startswith("unknown embodiment 'robot': Built in: ")


# The dataset's folder


def test_a_missing_dataset(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path):
    line = command_line(monkeypatch, capsys, "--dataset.repo_id=local/none", f"--dataset.root={tmp_path / 'none'}")
    assert line.startswith(f"no dataset 'local/none': {tmp_path / 'none'} has no meta/info.json, and the Hub has")
    assert line.endswith("correct --dataset.repo_id")
    (tmp_path / "empty").mkdir()
    command_line(monkeypatch, capsys, "--dataset.repo_id", "local/none", "--dataset.root", str(tmp_path / "empty"))


def test_a_repository_that_the_hub_has_not(hub: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    assert "no dataset 'user/none'" in command_line(monkeypatch, capsys, "--dataset.repo_id=user/none")


def test_only_training_needs_the_dataset(monkeypatch: pytest.MonkeyPatch, saved: Path, tmp_path: Path):
    """Recording creates it, resuming has it in its configuration, offline LeRobot's own cache may hold it."""
    root = f"--dataset.root={tmp_path / 'new'}"
    for command in (
        ["lerobot-record", "--dataset.repo_id=local/new", root],
        ["lerobot-train", "--config_path=somewhere/train_config.json", "--resume=true"],
        ["lerobot-train", "--dataset.repo_id=lerobot/cached"],
    ):
        monkeypatch.setattr(sys, "argv", command)
        tiny_config()
        assert isinstance(WAMPolicy.from_pretrained(saved), WAMPolicy)
