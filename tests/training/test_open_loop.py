"""Errors of predicted actions, and the two predictions that need no policy, on motions that are known exactly."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_policies import build_policy, write_dataset

from lerobot_wam.data.recipe import MixtureEntry
from lerobot_wam.data.source import WindowShape
from lerobot_wam.embodiments.action_space import ActionSpace, ActionStatistics
from lerobot_wam.embodiments.spec import CameraView, Dimension, EmbodimentSpec, Normalization
from lerobot_wam.training.open_loop import (
    HeldOut,
    copy_last_motion,
    hold_still,
    joint_errors,
    predict,
    read_held_out,
    share_of_range,
)

H = 8
SPEC = EmbodimentSpec(
    name="hand",
    cameras=(CameraView("observation.images.front"),),
    state=(Dimension("lift.pos"), Dimension("gripper.pos", gripper=True)),
    action=(Dimension("lift.pos", relative=True), Dimension("gripper.pos", gripper=True)),
    fps=10,
    video_stride=1,
    chunk_steps=H,
)
STATISTICS = ActionStatistics(np.zeros((1, 2)), np.array([[2.0, 0.5]]), np.zeros(2), np.ones(2))
SPACE = ActionSpace(SPEC, STATISTICS)
SHAPE = WindowShape(
    chunk_steps=H, video_stride=1, max_chunks=4, image_size=(32, 32), head_resize=None, action_dim=8, state_dim=8,
    drop_n_last_frames=0,
)  # fmt: skip


def ramp(frame: dict, episode: int, step: int) -> None:
    """The lift rises by 0.1 a step, commanded one step ahead; the gripper's command is the number of the step."""
    frame["observation.state"] = np.array([0.1 * step, 0.0], dtype=np.float32)
    frame["action"] = np.array([0.1 * (step + 1), step], dtype=np.float32)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> MixtureEntry:
    """Episodes of 20, 6 and 12 steps."""
    root = tmp_path_factory.mktemp("data") / "hand"
    joints = ["lift.pos", "gripper.pos"]
    write_dataset(root, (20, 6, 12), robot_type="hand", joints=joints, change=ramp, tasks=lambda *_: "lift it")
    return MixtureEntry("local/hand", root=str(root))


@pytest.fixture(scope="module")
def held_out(recording: MixtureEntry) -> HeldOut:
    return read_held_out(recording, SPEC, SHAPE, 1000)


def test_every_step_is_a_window(held_out: HeldOut):
    lift, gripper = held_out.state[:, 0], held_out.present[:, 0, 1]
    assert torch.round(lift * 10).tolist() == [*range(20), *range(6), *range(12)]
    assert torch.equal(gripper, torch.round(lift * 10))
    assert held_out.real.sum(dim=1).tolist() == [8] * 12 + [*range(8, 0, -1), *range(6, 0, -1)] + [8] * 4 + [
        *range(8, 0, -1)
    ]
    moved = torch.tensor([n >= 8 for length in (20, 6, 12) for n in range(length)])
    torch.testing.assert_close(held_out.past_state[moved, 0], lift[moved] - 0.8)
    torch.testing.assert_close(held_out.past[moved, -1, 1], gripper[moved] - 1)
    torch.testing.assert_close(held_out.past[~moved, :, 0], lift[~moved, None].expand(-1, H))  # it has stood there
    torch.testing.assert_close(held_out.past[~moved, -1, 1], gripper[~moved])
    assert set(held_out.task) == {"lift it"}


def test_fewer_windows_are_spread_over_all_episodes(recording: MixtureEntry):
    some = read_held_out(recording, SPEC, SHAPE, 4)
    assert torch.round(some.state[:, 0] * 10).tolist() == [0, 12, 5, 11]


def test_no_window_reaches_into_the_next_task(tmp_path: Path):
    root = write_dataset(
        tmp_path / "two", (24,), joints=["lift.pos", "gripper.pos"], change=ramp,
        tasks=lambda _, step: "up" if step < 10 else "on",
    )  # fmt: skip
    both = read_held_out(MixtureEntry("local/two", root=str(root)), SPEC, SHAPE, 1000)
    assert both.task == ["up"] * 10 + ["on"] * 14
    assert both.real[:10].sum(dim=1).tolist() == [8, 8, 8, 7, 6, 5, 4, 3, 2, 1]


def test_a_faster_recording_is_read_at_the_robots_rate(tmp_path: Path):
    joints = ["lift.pos", "gripper.pos"]
    root = write_dataset(tmp_path / "fast", (40,), joints=joints, change=ramp, fps=20)
    fast = read_held_out(MixtureEntry("local/fast", root=str(root)), SPEC, SHAPE, 1000)
    assert torch.round(fast.state[16] * 10)[0] == 16
    assert fast.present[16, :3, 1].tolist() == [16, 18, 20]
    assert fast.past[16, :3, 1].tolist() == [0, 2, 4]


def test_what_holding_still_and_the_last_motion_get_wrong(held_out: HeldOut):
    """A steady lift: standing still is wrong by 0.1 to 0.8, its last motion is right. The gripper counts steps."""
    step = torch.arange(len(held_out.task))
    moving, first = (replace(held_out, real=held_out.real & (step == n)[:, None]) for n in (8, 0))
    assert joint_errors(hold_still(SPACE, held_out), moving) == pytest.approx([0.45, 4.5])
    assert joint_errors(copy_last_motion(SPACE, held_out), moving) == pytest.approx([0, 8], abs=1e-6)
    for yardstick in (hold_still, copy_last_motion):  # nothing has moved yet
        assert joint_errors(yardstick(SPACE, held_out), first) == pytest.approx([0.45, 3.5])


def test_padded_steps_do_not_count(held_out: HeldOut):
    wrong = held_out.present + 100.0 * ~held_out.real[..., None]
    assert joint_errors(wrong, held_out) == [0, 0]


def test_joints_of_different_units_become_one_number():
    assert share_of_range([0.2, 0.1], SPEC, STATISTICS) == pytest.approx((0.1 + 0.2) / 2)
    still = replace(STATISTICS, action_high=np.array([[2.0, 0.0]]))
    assert share_of_range([0.2, 0.1], SPEC, still) == pytest.approx(0.1)
    floor = replace(SPEC, normalization=Normalization(min_half_range=0.5))
    assert share_of_range([0.2, 0.1], floor, still) == pytest.approx(0.1)


def test_predictions_repeat_whatever_the_batch_and_leave_the_policy_training(recording: MixtureEntry):
    policy = build_policy(Path(recording.root)).train()
    spec = policy.action_spaces[0].spec
    held_out = read_held_out(recording, spec, SHAPE, 5)
    chunks = predict(policy, held_out)
    assert chunks.shape == held_out.present.shape
    assert policy.training
    torch.testing.assert_close(predict(policy, held_out, batch_size=2), chunks)
