"""`imagines=false`: the same network without its video, as a policy."""

from pathlib import Path

import pytest
import torch
from tiny_policies import build_policy, make_batch, tiny_config, write_dataset

from lerobot_wam.command_line import SettingError


def test_it_learns_actions_alone_and_acts(arm_data: Path):
    policy = build_policy(arm_data, imagines=False).train()
    loss, parts = policy.forward(make_batch(arm_data, policy.config, [0, 5]))
    assert parts["video_loss"] == 0
    assert parts["action_loss"] > 0
    loss.backward()
    assert policy.model.head.head.weight.grad is None
    policy.eval()
    seen = {k: v[:, 0] for k, v in make_batch(arm_data, policy.config, [0, 5]).items() if k.startswith("observation.")}
    seen = {k: v for k, v in seen.items() if not k.endswith("is_pad")} | {"task": ["push red", "push blue"]}
    assert policy.select_action(seen).shape == (2, 6)
    with pytest.raises(ValueError, match="no video"):
        policy.runtime.imagine(policy._sessions[0].dream)


def test_it_refuses_video_without_actions(tmp_path: Path, arm_data: Path):
    policy = build_policy(write_dataset(tmp_path / "video", (20, 20), action=False), imagines=False).train()
    batch = make_batch(tmp_path / "video", policy.config, [0])
    with pytest.raises(ValueError, match="video without actions teaches a policy with imagines=false nothing"):
        policy.forward(batch)


def test_nothing_that_needs_its_video_can_be_asked_for(arm_data: Path):
    with pytest.raises(SettingError, match="leaves no video to compare"):
        tiny_config(imagines=False, on_surprise="replan")
    with pytest.raises(SettingError, match="nothing to save"):
        tiny_config(imagines=False, save_predicted_video=True)
    policy = build_policy(arm_data, imagines=False)
    runtime = policy.runtime
    with pytest.raises(ValueError, match="it can act, not simulate or label"):
        runtime.plan([], [], given_action=[torch.zeros(8, 6)])
