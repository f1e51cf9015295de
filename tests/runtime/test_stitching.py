"""Joining chunks, with and without the sampler, and smoothing them."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny_loops import make_model, make_runtime, see

from lerobot_wam.runtime.session import Runtime
from lerobot_wam.runtime.state import LoopRules
from lerobot_wam.runtime.stitching import Commitment, Guidance, smooth, soft_mask, stitch

OLD, NEW = torch.zeros(5, 2), torch.ones(8, 2)


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return make_runtime(make_model(), steps=4)


def test_a_switch_drops_what_has_passed():
    new = torch.arange(8.0)[:, None]
    assert stitch(OLD[:, :1], new, delay=3).flatten().tolist() == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("blend", [False, True])
def test_steps_at_which_the_arm_stood_still_are_not_dropped(blend: bool):
    new = torch.arange(8.0)[:, None]
    assert stitch(new[:2], new, delay=6, blend=blend).flatten().tolist() == [2, 3, 4, 5, 6, 7]
    assert torch.equal(stitch(torch.empty(0, 0), new, delay=6, blend=blend), new)


def test_a_blend_fades_linearly_over_the_overlap():
    joined = stitch(OLD, NEW, delay=2, blend=True)
    torch.testing.assert_close(joined[:, 0], torch.tensor([0.25, 0.5, 0.75, 1.0, 1.0, 1.0]))
    assert torch.equal(NEW, torch.ones(8, 2))


def test_the_soft_mask_is_that_of_the_paper():
    """Steps 0 and 1 are executed anyway; c = 3/4, 2/4, 1/4 over the rest, times (e^c - 1) / (e - 1)."""
    rest = [c * (math.exp(c) - 1) / (math.e - 1) for c in (0.75, 0.5, 0.25)]
    torch.testing.assert_close(soft_mask(2, 5), torch.tensor([1.0, 1.0, *rest]))
    assert soft_mask(6, 3).tolist() == [1.0, 1.0, 1.0]


def guidance(weight: torch.Tensor, strength: float = math.inf) -> Guidance:
    return Guidance(torch.full((1, 3, 2), 0.5), weight.expand(1, 3, 2), torch.full((1, 1, 1), strength))


@pytest.mark.parametrize("sigma", [1.0, 0.9, 0.3])
def test_the_clean_estimate_lands_on_its_target(sigma: float):
    torch.manual_seed(0)
    action, velocity = torch.randn(2, 1, 3, 2)
    guided = guidance(torch.tensor([[1.0], [0.5], [0.0]])).moved(velocity, action, sigma)
    clean, before = action - sigma * guided, action - sigma * velocity
    torch.testing.assert_close(clean[:, 0], torch.full((1, 2), 0.5))
    torch.testing.assert_close(clean[:, 1], (before[:, 1] + 0.5) / 2)
    torch.testing.assert_close(clean[:, 2], before[:, 2])


def test_strength_limits_the_pull():
    action, velocity = torch.zeros(2, 1, 3, 2)
    pulled = guidance(torch.ones(3, 1), strength=0.2).moved(velocity, action, 0.5)
    torch.testing.assert_close(pulled, torch.full((1, 3, 2), -0.2 * 0.5))


@pytest.mark.parametrize("sampler", [{"solver": "euler"}, {"solver": "unipc"}, {"steps": 1}])
def test_a_chunk_agrees_with_what_is_committed(sampler: dict[str, Any]):
    """Committed steps are met, later ones leant towards; the arm is no longer where the old chunk began."""
    loop = make_runtime(make_model(), **({"steps": 4} | sampler))
    free = loop.plan([loop.new_session(1)], [see(4)])[0].actions
    old = see(4).state + torch.linspace(-0.2, 0.3, 5)[:, None].repeat(1, 2)
    agreed = loop.plan([loop.new_session(1)], [see(4)], commitments=[Commitment(old, soft_mask(3, 5))])[0].actions
    torch.testing.assert_close(agreed[:3], old[:3], rtol=0, atol=1e-3)
    assert ((agreed[3:5] - old[3:]).abs() < (free[3:5] - old[3:]).abs()).all()


def test_later_steps_take_note_of_the_committed_ones(runtime: Runtime):
    """The network sees them in every pass but the first."""
    old = see(4).state + torch.zeros(3, 2)
    chunks = [
        runtime.plan([runtime.new_session(1)], [see(4)], commitments=[Commitment(old + shift, torch.ones(3))])[0]
        for shift in (0.0, 0.2)
    ]
    assert (chunks[0].actions[3:] - chunks[1].actions[3:]).abs().min() > 1e-5
    assert (chunks[0].latents - chunks[1].latents).abs().max() > 1e-5


def test_each_robot_of_a_batch_has_its_own_commitment(runtime: Runtime):
    commitment = Commitment(see(4).state + torch.zeros(4, 2), soft_mask(2, 4))
    sessions = [runtime.new_session(seed) for seed in (1, 2)]
    together = runtime.plan(sessions, [see(4), see(5)], commitments=[commitment, None])
    alone = runtime.plan([runtime.new_session(1)], [see(4)], commitments=[commitment])[0]
    free = runtime.plan([runtime.new_session(2)], [see(5)])[0]
    torch.testing.assert_close(together[0].actions, alone.actions, rtol=0, atol=1e-5)
    torch.testing.assert_close(together[1].actions, free.actions, rtol=0, atol=1e-5)


def test_smoothing_keeps_a_cubic_and_takes_noise_away():
    """The filter's order is 3, and cubic splines meet cubics exactly."""
    time = torch.linspace(-1, 1, 24)
    cubic = torch.stack([time**3 - time, time], dim=1)
    torch.testing.assert_close(smooth(cubic, [False, False]), cubic, rtol=0, atol=1e-5)
    noise = 0.1 * torch.randn(24, 2, generator=torch.Generator().manual_seed(0))
    rest = smooth(cubic + noise, [False, False]) - cubic
    assert rest.std() < 0.6 * noise.std()


def test_smoothing_is_scipys_filter_at_twice_the_rate():
    from scipy.interpolate import CubicSpline
    from scipy.signal import savgol_filter

    actions = torch.randn(24, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fine = CubicSpline(np.arange(24), actions.numpy())(np.arange(0, 23.5, 0.5))
    expected = savgol_filter(fine, 21, 3, axis=0)[::2]
    torch.testing.assert_close(smooth(actions, [False] * 3), torch.from_numpy(expected))


def test_smoothing_leaves_grippers_alone_and_fits_short_chunks():
    actions = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    smoothed = smooth(actions, [False, True])
    assert torch.equal(smoothed[:, 1], actions[:, 1])
    assert smoothed[:, 0].diff().abs().sum() < actions[:, 0].diff().abs().sum()


def test_a_runtime_smooths_its_chunks(runtime: Runtime):
    raw = runtime.plan([runtime.new_session(1)], [see(4)])[0].actions
    smoothing = make_runtime(make_model(), rules=LoopRules(smoothing=True), steps=4)
    smoothed = smoothing.plan([smoothing.new_session(1)], [see(4)])[0].actions
    torch.testing.assert_close(smoothed, smooth(raw, [False, False]))
