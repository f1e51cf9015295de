"""Skipped steps may continue the line through the last two computed velocities."""

from typing import Literal

import pytest
import torch
from torch import Tensor

from lerobot_wam.diffusion.sampler import SamplerConfig, sample_chunk
from lerobot_wam.diffusion.steps import HeldVelocity

VIDEO, ACTION = (2, 3, 2, 4, 4), (2, 8, 5)


def test_the_line_through_the_last_two_velocities_by_hand() -> None:
    held, both = HeldVelocity(extrapolate=True), torch.tensor([True, True])
    assert held.note(torch.tensor([[2.0], [10.0]]), 1.0, both).tolist() == [[2.0], [10.0]]
    assert held.at(0.5).tolist() == [[2.0], [10.0]]  # one velocity is no line yet
    held.note(torch.tensor([[3.0], [10.0]]), 0.75, both)  # slopes -4 and 0
    assert held.at(0.75).tolist() == [[3.0], [10.0]]
    assert held.at(0.5).tolist() == [[4.0], [10.0]]
    # Only the second sample computes: the first stays on its line, the second's turns to slope -8.
    assert held.note(torch.tensor([[7.0], [12.0]]), 0.5, torch.tensor([False, True])).tolist() == [[3.0], [12.0]]
    assert held.at(0.25).tolist() == [[5.0], [14.0]]


def test_repeating_holds_the_last_velocity_of_each_sample() -> None:
    held = HeldVelocity(extrapolate=False)
    held.note(torch.tensor([[2.0], [10.0]]), 1.0, torch.tensor([True, True]))
    held.note(torch.tensor([[3.0], [12.0]]), 0.5, torch.tensor([False, True]))
    assert held.at(0.25).tolist() == [[2.0], [12.0]]


def sampled(
    skipped: Literal["repeat", "extrapolate"], computed: str, solver: Literal["euler", "unipc"] = "euler"
) -> tuple[Tensor, Tensor]:
    """A chunk under velocities that are linear in the noise level, other ones for each sample and modality."""
    slope = torch.tensor([1.0, -3.0])

    def velocity(video: Tensor, action: Tensor, video_t: float, action_t: float, guided: bool) -> tuple[Tensor, Tensor]:
        rise_B, fall_B = 1 + slope * video_t / 1000, 2 - slope * action_t / 1000
        return rise_B.view(-1, 1, 1, 1, 1).expand(VIDEO), fall_B.view(-1, 1, 1).expand(ACTION)

    config = SamplerConfig(solver, 16, video_final_sigma=0.5, computed_steps=computed, skipped_steps=skipped)
    return sample_chunk(velocity, torch.zeros(VIDEO), torch.zeros(ACTION), config)[:2]


@pytest.mark.parametrize("computed", ["8", "7", "6", "5", "dynamic"])
def test_velocities_on_a_line_lose_nothing_by_extrapolation(computed: str) -> None:
    exact = sampled("repeat", "all")
    for found, expected in zip(sampled("extrapolate", computed), exact, strict=True):
        torch.testing.assert_close(found, expected)
    assert (sampled("repeat", computed)[1] - exact[1]).abs().max() > 0.01


def test_computed_steps_do_not_change_by_extrapolation() -> None:
    for skipping, repeating in zip(sampled("extrapolate", "all"), sampled("repeat", "all"), strict=True):
        assert torch.equal(skipping, repeating)


def test_unipc_extrapolates_in_its_own_noise_levels() -> None:
    # Its truncated timesteps are what the network is told, so these velocities are on a line only to 1/1000.
    exact = sampled("repeat", "all", "unipc")
    for found, expected in zip(sampled("extrapolate", "8", "unipc"), exact, strict=True):
        torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)


def test_another_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="skipped_steps 'drop' is unknown; choose repeat or extrapolate"):
        SamplerConfig(skipped_steps="drop")  # type: ignore[arg-type]
