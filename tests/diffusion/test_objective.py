"""The loss is batch-correct, honours masks, and trains without actions; noise modes draw what they say."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from lerobot_wam.diffusion.objective import (
    Draws,
    ObjectiveConfig,
    TrainingWindow,
    draw,
    joint_loss,
    ragged_joint_loss,
)
from lerobot_wam.diffusion.schedule import GIVEN, NoiseConfig, draw_noise_levels
from lerobot_wam.model.config import ModelConfig, VisualSummaryConfig
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.weights import PER_ROBOT

CHUNKS, STEPS, ACTION, FRAMES = 3, 4, 5, 7
SMALL = ModelConfig(
    dim=24,
    num_heads=2,
    num_layers=2,
    ffn_dim=32,
    freq_dim=16,
    text_dim=8,
    latent_channels=4,
    action_dim=ACTION,
    state_dim=3,
    action_hidden=16,
    actions_per_chunk=STEPS,
    max_chunks=CHUNKS,
    num_categories=2,
    visual_summary=VisualSummaryConfig(image_size=(8, 8), channels=(4, 4, 4), squeeze=2, hidden=8),
    auxiliary_bc=True,
)


@pytest.fixture
def model() -> WorldActionModel:
    torch.manual_seed(0)
    return WorldActionModel(SMALL)


def make_window(batch: int = 3) -> TrainingWindow:
    torch.manual_seed(1)
    frame_mask = torch.ones(batch, FRAMES, dtype=torch.bool)
    action_mask = torch.ones(batch, CHUNKS * STEPS, ACTION, dtype=torch.bool)
    frame_mask[1, 3:], action_mask[1, STEPS:] = False, False  # a short tail
    action_mask[0, :, 3:] = False  # an embodiment with fewer dimensions
    action_mask[2] = False  # video only
    return TrainingWindow(
        latent=torch.randn(batch, 4, FRAMES, 4, 4),
        frame_mask=frame_mask,
        action=torch.randn(batch, CHUNKS * STEPS, ACTION),
        action_mask=action_mask,
        state=torch.randn(batch, CHUNKS, 3),
        category=torch.zeros(batch, dtype=torch.int64),
        text=torch.randn(batch, 6, 8),
        anchor_frame=torch.rand(batch, CHUNKS, 3, 8, 8),
        channel_weight=torch.tensor([0.5, 1.0, 1.0, 1.5]),
    )


def streams(count: int = 3) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(5 + sample) for sample in range(count)]


def one(window: TrainingWindow, index: int) -> TrainingWindow:
    pick = {k: v[index : index + 1] for k, v in window.__dict__.items() if isinstance(v, Tensor)}
    return replace(window, **{**pick, "channel_weight": window.channel_weight})


@pytest.mark.parametrize("mode", ["coupled", "decoupled", "high_noise", "independent"])
def test_batch_loss_is_the_mean_of_single_losses(model: WorldActionModel, mode: str) -> None:
    window = make_window()
    config = ObjectiveConfig(noise=NoiseConfig(mode=mode, pure_noise_probability=0.3))  # type: ignore[arg-type]
    draws = draw(window, SMALL, config.noise, streams())

    def alone(index: int) -> Tensor:
        sample = Draws(**{name: value[index : index + 1] for name, value in vars(draws).items()})
        return joint_loss(model, one(window, index), config, draws=sample).total[0]

    together = joint_loss(model, window, config, draws=draws).total
    single = torch.stack([alone(i) for i in range(3)])
    torch.testing.assert_close(together, single, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.mean(), single.mean(), atol=1e-6, rtol=1e-6)


def test_masked_tail_changes_nothing(model: WorldActionModel) -> None:
    window = make_window()
    config = ObjectiveConfig()
    before = joint_loss(model, window, config, streams())
    latent, action = window.latent.clone(), window.action.clone()
    latent[1, :, 3:], action[1, STEPS:], action[2] = 9.0, -9.0, 9.0
    state, anchor = window.state.clone(), window.anchor_frame.clone()
    state[1, 1:], anchor[1, 1:] = 9.0, 9.0
    changed = replace(window, latent=latent, action=action, state=state, anchor_frame=anchor)
    after = joint_loss(model, changed, config, streams())
    assert torch.equal(before.total[1], after.total[1])
    assert before.action[2] == after.action[2] == 0


def test_video_without_a_robot_teaches_nothing_about_robots(model: WorldActionModel) -> None:
    """Neither alone nor beside other samples: exactly zero for every weight of states and actions."""
    with torch.no_grad():
        for parameter in model.parameters():  # a fresh model's last layers are zero, which hides what is before them
            parameter += 0.1 * torch.randn_like(parameter)
    whole = make_window()
    window = replace(whole, has_robot=whole.action_mask.any(dim=2).any(dim=1))
    assert window.has_robot.tolist() == [True, True, False]
    joint_loss(model, window, ObjectiveConfig(), streams()).total[2].backward()
    shared, robot = [], []
    for name, parameter in model.named_parameters():
        gradient = 0.0 if parameter.grad is None else parameter.grad.abs().sum().item()
        (robot if any(part in name for part in PER_ROBOT) else shared).append((name, gradient))
    assert robot
    assert [entry for entry in robot if entry[1] != 0] == []
    # Pooled text is measured from that of no word, so this bias cancels out for everyone.
    assert [name for name, gradient in shared if gradient == 0] == ["visual_summary.words.2.bias"]


def test_no_video_depends_on_hidden_states_and_actions(model: WorldActionModel) -> None:
    whole = make_window()
    window = replace(whole, has_robot=torch.tensor([True, True, False]))
    before = joint_loss(model, window, ObjectiveConfig(), streams()).total
    action, state = window.action.clone(), window.state.clone()
    action[2], state[2] = 7.0, -7.0
    changed = replace(window, action=action, state=state, category=torch.tensor([0, 0, 1]))
    assert torch.equal(joint_loss(model, changed, ObjectiveConfig(), streams()).total, before)
    seen = replace(changed, has_robot=None)
    assert joint_loss(model, seen, ObjectiveConfig(), streams()).total[2] != before[2]


def test_official_averaging_counts_padding(model: WorldActionModel) -> None:
    window = make_window()
    ours = joint_loss(model, window, ObjectiveConfig(), streams())
    config = ObjectiveConfig(averaging="official")
    official = joint_loss(model, window, config, streams())
    torch.testing.assert_close(official.action[0], ours.action[0] * 3 / 5)
    torch.testing.assert_close(official.action[1], ours.action[1] / CHUNKS)


@pytest.mark.parametrize("mode", ["coupled", "decoupled", "high_noise", "independent"])
def test_noise_modes(mode: str) -> None:
    config = NoiseConfig(mode=mode)  # type: ignore[arg-type]
    video, action = draw_noise_levels(config, 4000, CHUNKS, 2, STEPS, torch.Generator().manual_seed(0))
    assert video.shape == (4000, 1 + 2 * CHUNKS)
    assert action.shape == (4000, CHUNKS * STEPS)
    chunk_video, chunk_action = video[:, 1::2], action[:, ::STEPS]
    assert torch.equal(video[:, 2::2], chunk_video)
    assert torch.equal(action, chunk_action.repeat_interleave(STEPS, dim=1))
    correlation = torch.corrcoef(torch.stack([chunk_video.flatten(), chunk_action.flatten()]).float())[0, 1]
    if mode in ("coupled", "high_noise"):
        assert torch.equal(chunk_video, chunk_action)
    else:
        assert abs(correlation) < 0.05
    # Uniform indices have mean 499.5; Beta(7, 1) puts the mean at 1/8 of the table, near pure noise.
    expected_video = 125 if mode in ("decoupled", "high_noise") else 499.5
    expected_action = 125 if mode == "high_noise" else 499.5
    assert abs(chunk_video.float().mean() - expected_video) < 10
    assert abs(chunk_action.float().mean() - expected_action) < 10


def test_decoupled_levels_per_step_and_pure_noise() -> None:
    config = NoiseConfig(mode="decoupled", action_level_per_chunk=False, pure_noise_probability=1.0)
    video, action = draw_noise_levels(config, 8, CHUNKS, 2, STEPS)
    assert video[:, 1:].eq(0).all()
    assert action.eq(0).all()
    _, action = draw_noise_levels(replace(config, pure_noise_probability=0.0), 8, CHUNKS, 2, STEPS)
    assert action[:, 0].ne(action[:, 1]).any()
    with pytest.raises(ValueError, match="choose one of coupled"):
        NoiseConfig(mode="flash")  # type: ignore[arg-type]


def test_one_modality_is_given_in_a_share_of_the_chunks() -> None:
    config = NoiseConfig(mode="independent", given_probability=0.6)
    video, action = draw_noise_levels(config, 4000, CHUNKS, 2, STEPS, torch.Generator().manual_seed(0))
    video_given, action_given = (
        video[:, 1:].unflatten(1, (CHUNKS, 2)) == GIVEN,
        action.unflatten(1, (CHUNKS, -1)) == GIVEN,
    )
    for given in (video_given, action_given):
        assert torch.equal(given.any(-1), given.all(-1))
        assert abs(given.float().mean() - 0.3) < 0.02
    assert not (video_given.any(-1) & action_given.any(-1)).any()
    assert not video[:, 0].eq(GIVEN).any()
    with pytest.raises(ValueError, match=r"given_probability is 0\.6 with noise mode 'coupled'"):
        replace(config, mode="coupled")


def test_what_is_given_enters_clean_and_is_not_learned(model: WorldActionModel) -> None:
    """Noise of a given modality changes nothing, and of its own loss only what is noisy remains."""
    window, config = make_window(), ObjectiveConfig(noise=NoiseConfig(mode="independent"))
    draws = draw(window, SMALL, config.noise, streams())
    action_index, video_index = draws.action_index.clone(), draws.video_index.clone()
    action_index[0], video_index[1, 1:3] = GIVEN, GIVEN  # all actions of sample 0, the first chunk's video of sample 1
    draws = replace(draws, action_index=action_index, video_index=video_index)
    losses = joint_loss(model, window, config, draws=draws)
    action_noise, video_noise = draws.action_noise.clone(), draws.video_noise.clone()
    action_noise[0], video_noise[1, :, 1:3] = 9.0, 9.0
    other = joint_loss(model, window, config, draws=replace(draws, action_noise=action_noise, video_noise=video_noise))
    assert torch.equal(losses.total, other.total)
    assert losses.action[0] == 0
    assert losses.video[0] > 0
    assert losses.video[1] > 0
    gradient = torch.autograd.grad(losses.video[0], model.action_encoder.W1.W, retain_graph=True)[0]
    assert gradient.abs().sum() > 0, "given actions are read"


def cut(window: TrainingWindow, rows: Tensor, chunks: int) -> TrainingWindow:
    frames, steps = slice(1 + 2 * chunks), slice(STEPS * chunks)
    picked = {k: v[rows] for k, v in window.__dict__.items() if isinstance(v, Tensor) and k != "channel_weight"}
    return replace(
        window,
        **picked
        | {
            "latent": picked["latent"][:, :, frames],
            "frame_mask": picked["frame_mask"][:, frames],
            "action": picked["action"][:, steps],
            "action_mask": picked["action_mask"][:, steps],
            "state": picked["state"][:, :chunks],
            "anchor_frame": picked["anchor_frame"][:, :chunks],
        },
    )


def test_ragged_windows_lose_what_they_lose_alone(model: WorldActionModel) -> None:
    window, config = make_window(), ObjectiveConfig()
    counts = torch.tensor([3, 1, 3])
    ragged = ragged_joint_loss(model, partial(cut, window), counts, config, streams())
    own = streams()
    short = joint_loss(model, cut(window, torch.tensor([1]), 1), config, own[1:2])
    long = joint_loss(model, cut(window, torch.tensor([0, 2]), 3), config, [own[0], own[2]])
    torch.testing.assert_close(ragged.total, torch.stack([long.total[0], short.total[0], long.total[1]]))
