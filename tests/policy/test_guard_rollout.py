"""What reaches the simulated arm in `lerobot-rollout`, as a user types it, from policies that should not drive."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot_commands import run
from tiny_policies import build_policy

from lerobot_wam.guard.contract import Contract
from lerobot_wam.guard.guard import GuardError
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.processor_wam import make_wam_pre_post_processors

pytest.importorskip("mujoco")

RATE = 0.3  # rad/s
SYNC = ["--inference.type=sync"]
RTC = ["--inference.type=rtc", "--inference.queue_threshold=4", "--inference.rtc.execution_horizon=6"]


@pytest.fixture
def wild(arm_data: Path) -> WAMPolicy:
    """Random weights, and joints that may turn by 0.03 rad in a control step."""
    torch.manual_seed(0)
    policy = build_policy(arm_data).eval()
    for dimension in policy.config.embodiments["wam_sim_viperx"]["spec"]["action"]:
        dimension["max_rate"] = RATE
    return policy


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """What the arm is told, behind what it showed first."""
    from lerobot_wam.sim.arm_robot import WAMSimArm

    told: list[list[float]] = []
    send, connect = WAMSimArm.send_action, WAMSimArm.connect

    def connected(arm: WAMSimArm, *settings: object) -> None:
        connect(arm, *settings)
        told.append(arm.world.joints.tolist())

    def watched(arm: WAMSimArm, action: dict[str, float]) -> dict[str, float]:
        told.append(list(action.values()))
        return send(arm, action)

    monkeypatch.setattr(WAMSimArm, "connect", connected)
    monkeypatch.setattr(WAMSimArm, "send_action", watched)
    return told


def roll_out(policy: WAMPolicy, folder: Path, *flags: str) -> None:
    policy.save_pretrained(folder)
    for pipeline in make_wam_pre_post_processors(policy.config, {}):
        pipeline.save_pretrained(folder)
    run(
        "lerobot-rollout",
        *(f"--policy.path={folder}", "--policy.device=cpu", "--fps=10", "--duration=3"),
        *("--robot.type=wam_sim_arm", "--robot.image_size=32", "--task=push the red cube to the left"),
        *("--return_to_initial_position=false", *flags),
    )


def test_a_wild_policy_moves_the_arm_slowly_and_within_its_limits(
    wild: WAMPolicy, sent: list[list[float]], tmp_path: Path
):
    roll_out(wild, tmp_path / "policy", *SYNC)
    path, contract = np.array(sent), Contract.of(wild.action_spaces[0].spec)
    assert len(path) > 2
    assert np.abs(np.diff(path, axis=0)).max() == pytest.approx(RATE / 10, abs=1e-6)
    assert ((contract.low - 1e-6 <= path) & (path <= contract.high + 1e-6)).all()


def test_weights_that_are_not_finite_end_the_run_with_the_arm_where_it_was(
    wild: WAMPolicy, sent: list[list[float]], tmp_path: Path
):
    torch.nn.init.constant_(wild.acting_model.action_decoder.layer2.b, torch.nan)
    with pytest.raises(GuardError, match="4 faults in a row"):
        roll_out(wild, tmp_path / "policy", *SYNC, "--policy.guard_patience=3", "--duration=60")
    assert len(sent) == 1 + 3
    assert np.ptp(np.array(sent), axis=0).max() < 0.01  # the arm sags a little


def test_real_time_chunks_that_are_not_finite_hold_the_arm(wild: WAMPolicy, sent: list[list[float]], tmp_path: Path):
    torch.nn.init.constant_(wild.acting_model.action_decoder.layer2.b, torch.nan)
    roll_out(wild, tmp_path / "policy", *RTC, "--duration=4")
    assert len(sent) > 2
    assert np.ptp(np.array(sent), axis=0).max() < 0.01
