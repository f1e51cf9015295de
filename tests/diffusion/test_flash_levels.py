"""Decoupled training shows what Flash acts on: a noisy video beside actions of any level (spec §2.1, mode 2)."""

import pytest
import torch

from lerobot_wam.diffusion.schedule import NoiseConfig, draw_noise_levels, training_table

CHUNKS, FRAMES, STEPS = 4, 2, 8


def test_video_levels_follow_the_shifted_beta_and_action_levels_the_shifted_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    video, action = draw_noise_levels(NoiseConfig("decoupled"), 20_000, CHUNKS, FRAMES, STEPS, generator)
    sigma = training_table().sigma
    # E[5s / (1 + 4s)] with s from Beta(7, 1), whose density is 7 s^6, and from the uniform distribution.
    s = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    shifted = 5 * s / (1 + 4 * s)
    assert sigma[video].mean().item() == pytest.approx((7 * s**6 * shifted).mean().item(), abs=2e-3)
    assert sigma[action].mean().item() == pytest.approx(shifted.mean().item(), abs=2e-3)
    assert (7 * s**6 * shifted).mean() > 0.96 > 0.75 > shifted.mean()
    # An almost clean chunk of actions sees a video that is as noisy as any other's.
    per_chunk = action[:, ::STEPS]
    clean = sigma[per_chunk] < 0.2
    assert sigma[video[:, 1::FRAMES]][clean].mean().item() == pytest.approx(sigma[video].mean().item(), abs=5e-3)
