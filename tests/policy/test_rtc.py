"""LeRobot's real-time chunking: what it asks of a policy, and a rollout from end to end."""

import logging
import re
from pathlib import Path

import pytest
import torch
from lerobot.configs import RTCAttentionSchedule
from lerobot.policies.rtc import RTCConfig, RTCProcessor
from lerobot.rollout.inference.rtc import supports_rtc_inference
from tiny_policies import build_policy, observe

from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.runtime.stitching import Guidance, soft_mask

STEPS = 8
EXP = RTCAttentionSchedule.EXP


@pytest.fixture
def policy(arm_data: Path) -> WAMPolicy:
    policy = build_policy(arm_data, num_inference_steps=4).eval()
    policy.config.rtc_config = RTCConfig(execution_horizon=6, prefix_attention_schedule=EXP)
    policy.init_rtc_processor()
    return policy


def left_over(policy: WAMPolicy, batch: dict, steps: int = 6) -> torch.Tensor:
    """What is left of a chunk that has led to this observation."""
    motion = torch.linspace(-0.5, 0.5, STEPS)[:, None].repeat(1, 6)  # of the range that the data spans
    anchor = batch["observation.state"][0]
    return policy.action_spaces[0].decode(motion[None, None], anchor[None, None])[0, 0, :steps]


def test_lerobot_finds_the_support(policy: WAMPolicy):
    assert supports_rtc_inference(policy)


def test_a_chunk_goes_on_from_the_one_that_is_executed(policy: WAMPolicy):
    batch = observe(policy, seed=3)
    old = left_over(policy, batch)
    free = policy.predict_action_chunk(batch)[0]
    agreed = policy.predict_action_chunk(batch, inference_delay=2, prev_chunk_left_over=old)[0]
    assert agreed.shape == (STEPS, 6)
    assert not agreed.requires_grad
    torch.testing.assert_close(agreed[:2], old[:2], rtol=0, atol=1e-3)
    assert (agreed[2:5] - old[2:5]).abs().mean() < (free[2:5] - old[2:5]).abs().mean()


def test_what_lerobot_pads_with_zeros_is_no_pose(policy: WAMPolicy):
    """The engine makes every rest as long as the execution horizon."""
    batch = observe(policy, seed=3)
    old = left_over(policy, batch, steps=3)
    padded = torch.cat([old, torch.zeros(7, 6)])
    expected = policy.predict_action_chunk(batch, inference_delay=1, prev_chunk_left_over=old)
    assert torch.equal(policy.predict_action_chunk(batch, inference_delay=1, prev_chunk_left_over=padded), expected)
    nothing = policy.predict_action_chunk(batch, inference_delay=1, prev_chunk_left_over=torch.zeros(10, 6))
    assert torch.equal(nothing, policy.predict_action_chunk(batch))


def test_every_option_of_lerobot_counts(policy: WAMPolicy):
    batch = observe(policy, seed=3)
    old = left_over(policy, batch)

    def chunk(**options: object) -> torch.Tensor:
        policy.config.rtc_config = RTCConfig(**{"execution_horizon": 6, "prefix_attention_schedule": EXP} | options)
        policy.init_rtc_processor()
        return policy.predict_action_chunk(batch, inference_delay=2, prev_chunk_left_over=old)

    usual, free = chunk(), policy.predict_action_chunk(batch)
    linear = chunk(prefix_attention_schedule=RTCAttentionSchedule.LINEAR)
    others = [linear, chunk(execution_horizon=3), chunk(max_guidance_weight=0.1)]
    assert all(not torch.allclose(usual, other, atol=1e-5) for other in others)
    assert torch.equal(chunk(enabled=False), free)


@pytest.mark.parametrize(("delay", "overlap"), [(0, 4), (2, 6), (3, 3), (5, 3)])
def test_the_soft_mask_is_that_of_lerobot(delay: int, overlap: int):
    expected = RTCProcessor(RTCConfig(prefix_attention_schedule=EXP)).get_prefix_weights(delay, overlap, STEPS)
    torch.testing.assert_close(soft_mask(delay, overlap), expected[:overlap])


def test_the_guidance_is_that_of_lerobot_where_its_schedule_does_not_overshoot():
    """At sigma 0.5 the paper's weight is 2 = 1 / sigma."""
    action, velocity, target = torch.randn(3, 1, 3, 2, generator=torch.Generator().manual_seed(0))
    processor = RTCProcessor(RTCConfig(prefix_attention_schedule=EXP))
    theirs = processor.denoise_step(action, target, 1, 0.5, lambda x: velocity, execution_horizon=3)
    weight = soft_mask(1, 3)[None, :, None].expand_as(target)
    ours = Guidance(target, weight, torch.full((1, 1, 1), 10.0)).moved(velocity, action, 0.5)
    torch.testing.assert_close(ours, theirs.detach())


def test_a_rollout_of_lerobot_runs_ahead_of_the_arm(
    policy: WAMPolicy, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """`lerobot-rollout --inference.type=rtc` as a user types it, on the simulated arm."""
    pytest.importorskip("mujoco")
    from lerobot_commands import run

    from lerobot_wam.processor_wam import make_wam_pre_post_processors
    from lerobot_wam.sim.arm_robot import WAMSimArm

    policy.save_pretrained(tmp_path / "policy")
    for processor in make_wam_pre_post_processors(policy.config, {}):
        processor.save_pretrained(tmp_path / "policy")
    sent: list[dict[str, float]] = []
    send = WAMSimArm.send_action
    monkeypatch.setattr(WAMSimArm, "send_action", lambda arm, action: sent.append(action) or send(arm, action))
    asked: list[bool] = []
    predict = WAMPolicy.predict_action_chunk

    def watched(self: WAMPolicy, batch: dict, **settings: object) -> torch.Tensor:
        asked.append(settings["prev_chunk_left_over"] is not None)
        return predict(self, batch, **settings)

    monkeypatch.setattr(WAMPolicy, "predict_action_chunk", watched)
    with caplog.at_level(logging.WARNING):
        run(
            "lerobot-rollout",
            f"--policy.path={tmp_path / 'policy'}",
            "--policy.device=cpu",
            *("--robot.type=wam_sim_arm", "--robot.image_size=32", "--task=push the red cube to the left"),
            *("--inference.type=rtc", "--inference.queue_threshold=4", "--inference.rtc.execution_horizon=6"),
            *("--fps=10", "--duration=4", "--return_to_initial_position=false"),
        )
    assert len(sent) >= 10
    assert not asked[0]
    assert any(asked)
    assert not re.search("RTC inference error|Fatal", caplog.text)
