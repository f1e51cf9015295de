"""The samplers integrate both modalities, leave a given one alone and guide video only."""

import pytest
import torch
from torch import Tensor

from lerobot_wam.diffusion.sampler import SamplerConfig, sample_chunk
from lerobot_wam.diffusion.steps import STATIC_STEPS

VIDEO, ACTION = (2, 3, 2, 4, 4), (2, 8, 5)


def toward(video_target: Tensor, action_target: Tensor):
    """Return the exact velocity field of a point mass: v = (x - target) / sigma."""

    def velocity(
        video: Tensor, action: Tensor, video_t: float, action_t: float, guided: bool = True
    ) -> tuple[Tensor, Tensor]:
        def field(x: Tensor, target: Tensor, t: float) -> Tensor:
            return (x - target) / (t / 1000) if t else torch.zeros_like(x)

        return field(video, video_target, video_t), field(action, action_target, action_t)

    return velocity


@pytest.mark.parametrize(("solver", "tolerance"), [("euler", 1e-5), ("unipc", 5e-2)])
@pytest.mark.parametrize("steps", [1, 4, 16])
def test_reaches_a_point_mass(solver: str, tolerance: float, steps: int) -> None:
    # UniPC is told truncated timesteps, so it lands near the point and not on it.
    torch.manual_seed(0)
    video_target, action_target = torch.randn(VIDEO), torch.randn(ACTION)
    config = SamplerConfig(solver=solver, steps=steps)  # type: ignore[arg-type]
    start = torch.randn(VIDEO), torch.randn(ACTION)
    video, action, _ = sample_chunk(toward(video_target, action_target), *start, config)
    torch.testing.assert_close(video, video_target, atol=tolerance, rtol=0)
    torch.testing.assert_close(action, action_target, atol=tolerance, rtol=0)


@pytest.mark.parametrize("given", ["video", "action"])
def test_given_modality_is_fed_clean_and_returned(given: str) -> None:
    torch.manual_seed(0)
    seen: list[tuple[float, float]] = []
    field = toward(torch.zeros(VIDEO), torch.zeros(ACTION))

    def velocity(video: Tensor, action: Tensor, video_t: float, action_t: float, guided: bool) -> tuple[Tensor, Tensor]:
        seen.append((video_t, action_t))
        return field(video, action, video_t, action_t)

    start_video, start_action = torch.randn(VIDEO), torch.randn(ACTION)
    config = SamplerConfig()
    video, action, _ = sample_chunk(velocity, start_video, start_action, config, given=given)  # type: ignore[arg-type]
    given_index = 0 if given == "video" else 1
    assert all(times[given_index] == 0 and times[1 - given_index] > 0 for times in seen)
    assert torch.equal(video, start_video) == (given == "video")
    assert torch.equal(action, start_action) == (given == "action")


@pytest.mark.parametrize(("computed", "last"), [("all", 15), ("8", 15), ("5", 12)])
def test_the_last_computed_step_needs_no_guidance_for_actions_alone(computed: str, last: int) -> None:
    asked: list[bool] = []
    field = toward(torch.zeros(VIDEO), torch.zeros(ACTION))

    def velocity(video: Tensor, action: Tensor, video_t: float, action_t: float, guided: bool) -> tuple[Tensor, Tensor]:
        asked.append(guided)
        return field(video, action, video_t, action_t)

    config = SamplerConfig(steps=16, guidance=5.0, computed_steps=computed)
    for action_only in (False, True):
        sample_chunk(velocity, torch.randn(VIDEO), torch.randn(ACTION), config, action_only=action_only)
    passes = len(asked) // 2
    assert passes == len([step for step in STATIC_STEPS.get(computed, range(16)) if step <= last])
    assert asked == [True] * passes + [True] * (passes - 1) + [False]


def test_video_may_stop_early() -> None:
    torch.manual_seed(0)
    noise, target = torch.randn(VIDEO), torch.randn(VIDEO)
    config = SamplerConfig(video_final_sigma=0.8)
    start = noise, torch.randn(ACTION)
    video, action, clean = sample_chunk(toward(target, torch.zeros(ACTION)), *start, config)
    torch.testing.assert_close(video, 0.8 * noise + 0.2 * target)
    torch.testing.assert_close(action, torch.zeros(ACTION), atol=1e-5, rtol=0)
    torch.testing.assert_close(clean, target, atol=1e-5, rtol=0)
