"""Normalisation both ways: relative to the anchor, clipped on the way in only, exact on the way back."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from lerobot_wam.embodiments.action_space import ActionSpace, ActionStatistics
from lerobot_wam.embodiments.spec import CameraView, Dimension, EmbodimentSpec, Normalization

# The state is in another order than the action, and has a dimension that the action lacks.
SPEC = EmbodimentSpec(
    name="arm",
    cameras=(CameraView("observation.images.front"),),
    state=(Dimension("force"), Dimension("b"), Dimension("gripper", gripper=True), Dimension("a")),
    action=(Dimension("a", relative=True), Dimension("b", relative=True), Dimension("gripper", gripper=True)),
    fps=10,
    video_stride=1,
    chunk_steps=8,
)
STATE_RANGE = {"state_low": np.array([0.0, -1, 0, -2]), "state_high": np.array([4.0, 1, 1, 2])}


def with_normalization(**settings) -> EmbodimentSpec:
    return replace(SPEC, normalization=Normalization(**settings))


def pooled(low=(-0.5, -0.2, 0.0), high=(0.5, 0.4, 1.0)) -> ActionStatistics:
    return ActionStatistics(np.array([low]), np.array([high]), **STATE_RANGE)


def chunks(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    anchor = torch.rand(2, 3, 4, generator=generator) * 2 - 1
    actions = anchor[..., None, [3, 1, 2]] * torch.tensor([1.0, 1, 0])
    return actions + torch.rand(2, 3, 8, 3, generator=generator) * torch.tensor([0.5, 0.2, 1]), anchor


def test_relative_dimensions_take_the_state_of_the_same_name():
    actions, anchor = chunks()
    relative = ActionSpace(SPEC, pooled()).to_relative(actions, anchor)
    torch.testing.assert_close(relative[..., 0], actions[..., 0] - anchor[..., None, 3])
    torch.testing.assert_close(relative[..., 1], actions[..., 1] - anchor[..., None, 1])
    assert torch.equal(relative[..., 2], actions[..., 2])


@pytest.mark.parametrize("per_step", [False, True])
def test_decode_inverts_encode(per_step):
    spec = with_normalization(per_step=per_step, clip=None)
    statistics = pooled()
    if per_step:
        growth = np.linspace(0.1, 1, 8)[:, None]
        statistics = ActionStatistics(
            growth * statistics.action_low, growth * statistics.action_high, **STATE_RANGE, steps=9, windows=8
        )
    space = ActionSpace(spec, statistics)
    actions, anchor = chunks()
    normalised = space.encode(actions, anchor)
    assert normalised.dtype == torch.float32
    torch.testing.assert_close(space.decode(normalised, anchor), actions)
    if per_step:
        relative = space.to_relative(actions, anchor)
        low, high = torch.from_numpy(statistics.action_low[3]), torch.from_numpy(statistics.action_high[3])
        torch.testing.assert_close(
            normalised[:, :, 3].double(), 2 * (relative[:, :, 3] - low) / (high - low) - 1, atol=1e-5, rtol=1e-5
        )


def test_state_maps_its_range_to_one():
    space = ActionSpace(SPEC, pooled())
    state = torch.tensor([[0.0, 1, 0.5, 0], [4, -1, 0, 5]])
    torch.testing.assert_close(space.encode_state(state), torch.tensor([[-1.0, 1, 0, 0], [1, -1, -1, 1]]))


@pytest.mark.parametrize(("clip", "expected"), [(1.0, 1.0), (1.5, 1.5), (None, 5.0)])
def test_clip_bounds_the_way_in_only(clip, expected):
    space = ActionSpace(with_normalization(clip=clip), pooled())
    anchor = torch.zeros(1, 1, 4)
    normalised = space.encode(torch.tensor([2.5, 0.1, 0.5]).expand(1, 1, 8, 3), anchor)
    assert normalised[..., 0].unique().item() == expected
    decoded = space.decode(torch.full((1, 1, 8, 3), 3.0), anchor)
    torch.testing.assert_close(decoded[0, 0, 0], torch.tensor([1.5, 1.0, 2.0]))


def test_a_single_value_passes_raw_and_comes_back_as_itself():
    """DreamZero's asymmetric rule, where no floor is set."""
    space = ActionSpace(SPEC, pooled(low=(0.3, -0.2, 0.0), high=(0.3, 0.4, 1.0)))
    anchor = torch.tensor([0.0, 0, 0, 1.0]).expand(1, 1, 4)
    normalised = space.encode(torch.tensor([5.0, 0.1, 0.5]).expand(1, 1, 8, 3), anchor)
    assert normalised[..., 0].unique().item() == 4.0  # 5 minus the anchor 1, unscaled, unclipped
    assert space.decode(normalised, anchor)[..., 0].unique().item() == pytest.approx(1.3)


def test_a_floor_makes_a_single_value_regular():
    space = ActionSpace(
        with_normalization(min_half_range=0.04, clip=1.5), pooled(low=(0.3, -0.2, 0.0), high=(0.3, 0.4, 1.0))
    )
    actions = torch.tensor([0.32, 0.1, 0.5]).expand(1, 1, 8, 3)
    anchor = torch.zeros(1, 1, 4)
    normalised = space.encode(actions, anchor)
    torch.testing.assert_close(normalised[0, 0, 0], torch.tensor([0.5, 0, 0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(space.decode(normalised, anchor), actions)


def test_decode_keeps_the_anchors_precision():
    actions, anchor = chunks()
    space = ActionSpace(SPEC, pooled())
    assert space.decode(torch.zeros(actions.shape, dtype=torch.bfloat16), anchor.double()).dtype == torch.float64


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_numbers_are_named(value):
    space = ActionSpace(SPEC, pooled())
    actions, anchor = chunks()
    broken = actions.clone()
    broken[1, 2, 4, 1] = value
    with pytest.raises(ValueError, match=rf"action 'b' is {value} at index \[1, 2, 4, 1\]"):
        space.encode(broken, anchor)
    anchor[0, 1, 3] = value
    with pytest.raises(ValueError, match=r"anchor state 'a' is .* at index \[0, 1, 3\]"):
        space.encode(actions, anchor)
    with pytest.raises(ValueError, match="state 'a' is"):
        space.encode_state(anchor)


def test_statistics_of_another_robot_are_refused():
    with pytest.raises(
        ValueError, match=r"statistics of 'arm' have shapes .* expected action \(8, 3\) and state \(4,\)"
    ):
        ActionSpace(with_normalization(per_step=True), pooled())


def test_statistics_round_trip_through_json():
    statistics = ActionStatistics(np.random.rand(8, 3), np.random.rand(8, 3) / 3, **STATE_RANGE, steps=10, windows=7)
    again = ActionStatistics.from_dict(json.loads(json.dumps(statistics.to_dict())))
    for key, value in vars(statistics).items():
        assert np.array_equal(getattr(again, key), value)


def test_video_without_a_robot():
    spec = replace(SPEC, state=(), action=())
    empty = ActionStatistics.from_dict(
        ActionStatistics(np.zeros((1, 0)), np.zeros((1, 0)), np.zeros(0), np.zeros(0)).to_dict()
    )
    space = ActionSpace(spec, empty)
    assert space.encode(torch.zeros(1, 2, 8, 0), torch.zeros(1, 2, 0)).shape == (1, 2, 8, 0)
