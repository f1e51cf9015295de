"""Promises of the network that need no recorded numbers."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lerobot_wam.model.cache import KVCache
from lerobot_wam.model.config import ModelConfig, VisualSummaryConfig
from lerobot_wam.model.inputs import Context, NoisyWindow
from lerobot_wam.model.layout import Kind, VideoGrid, may_attend, step_layout, video_layout
from lerobot_wam.model.world_action_model import WorldActionModel

BATCH, CHUNKS, STEPS = 3, 3, 4
CONFIG = ModelConfig(
    dim=48,
    num_heads=4,
    num_layers=2,
    ffn_dim=96,
    freq_dim=32,
    text_dim=16,
    latent_channels=6,
    condition_channels=2,
    image_dim=12,
    action_dim=5,
    state_dim=7,
    action_hidden=24,
    num_categories=2,
    actions_per_chunk=STEPS,
    max_chunks=CHUNKS,
    absolute_positions=True,
    visual_summary=VisualSummaryConfig(image_size=(16, 16), channels=(4, 6, 8), squeeze=4, hidden=16),
    auxiliary_bc=True,
)


@pytest.fixture(params=[True, False], ids=["imagining", "action_only"])
def model(request: pytest.FixtureRequest) -> WorldActionModel:
    return make_model(imagines=request.param)


def make_model(imagines: bool) -> WorldActionModel:
    torch.manual_seed(0)
    model = WorldActionModel(replace(CONFIG, imagines=imagines))
    for parameter in model.parameters():  # biases and modulations away from zero, so that none can hide an error
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def window_and_inputs(model: WorldActionModel) -> tuple[NoisyWindow, Tensor, Context, Tensor, Tensor]:
    torch.manual_seed(1)
    frames = 2 * CHUNKS
    context = model.embed_context(torch.randn(BATCH, 5, 16), torch.randn(BATCH, 4, 12))
    clean = torch.randn(BATCH, 6, 1 + frames, 4, 6)
    condition = torch.randn(BATCH, 2, 1 + frames, 4, 6)
    pixels = torch.rand(BATCH, CHUNKS, 3, 16, 16) * 2 - 1
    state, category = torch.randn(BATCH, CHUNKS, 7), torch.tensor([0, 1, 0])
    window = NoisyWindow(
        video=torch.randn(BATCH, 6, frames, 4, 6),
        video_timestep=(1000 * torch.rand(BATCH, CHUNKS)).repeat_interleave(2, dim=1),
        action=torch.randn(BATCH, CHUNKS * STEPS, 5),
        action_timestep=1000 * torch.rand(BATCH, CHUNKS * STEPS),
        state=state,
        category=category,
        condition=condition[:, :, 1:],
        summary=model.summarise(pixels, state, category, context),
    )
    return window, clean, context, condition, pixels


def chunk(window: NoisyWindow, index: int) -> NoisyWindow:
    frames, steps = slice(2 * index, 2 * index + 2), slice(STEPS * index, STEPS * (index + 1))
    return NoisyWindow(
        window.video[:, :, frames],
        window.video_timestep[:, frames],
        window.action[:, steps],
        window.action_timestep[:, steps],
        window.state[:, index : index + 1],
        window.category,
        None if window.condition is None else window.condition[:, :, frames],
        None if window.summary is None else window.summary[:, index : index + 1],
    )


@torch.no_grad()
def test_cached_inference_equals_training_forward(model: WorldActionModel) -> None:
    window, clean, context, condition, _ = window_and_inputs(model)
    video, action = model(window, clean, context, condition)
    cache = model.write_observation(clean[:, :, :1], context, None, condition[:, :, :1])
    for index in range(CHUNKS):
        chunk_video, chunk_action = model.denoise(chunk(window, index), context, cache)
        torch.testing.assert_close(chunk_video, video[:, :, 2 * index : 2 * index + 2], atol=1e-5, rtol=0)
        steps = slice(STEPS * index, STEPS * (index + 1))
        torch.testing.assert_close(chunk_action, action[:, steps], atol=1e-5, rtol=0)
        frames = slice(1 + 2 * index, 3 + 2 * index)
        cache = model.write_observation(clean[:, :, frames], context, cache, condition[:, :, frames])


@torch.no_grad()
def test_later_chunks_and_other_samples_never_leak(model: WorldActionModel) -> None:
    window, clean, context, condition, _ = window_and_inputs(model)
    video, action = model(window, clean, context, condition)
    changed_clean, changed_video = clean.clone(), window.video.clone()
    changed_clean[:, :, 3:] += 1  # clean frames of chunks 1 and 2
    changed_video[:, :, 2:] += 1  # noisy frames of chunks 1 and 2
    changed = NoisyWindow(**{**window.__dict__, "video": changed_video})
    other_video, other_action = model(changed, changed_clean, context, condition)
    assert torch.equal(other_video[:, :, :2], video[:, :, :2])
    assert torch.equal(other_action[:, :STEPS], action[:, :STEPS])
    assert not torch.allclose(other_action[:, STEPS:], action[:, STEPS:])
    assert torch.allclose(other_video[:, :, 2:], video[:, :, 2:]) is not model.config.imagines


@torch.no_grad()
def test_stacked_caches_equal_single_runs(model: WorldActionModel) -> None:
    window, clean, context, condition, _ = window_and_inputs(model)
    cache = model.write_observation(clean[:, :, :1], context, None, condition[:, :, :1])
    together, _ = model.denoise(chunk(window, 0), context, cache)
    singles = [cache.pick(slice(row, row + 1)) for row in range(BATCH)]
    restacked = KVCache.stack(singles)
    again, _ = model.denoise(chunk(window, 0), context, restacked)
    assert torch.equal(together, again)
    assert sum(single.bytes for single in singles) == cache.bytes


def test_category_weights_belong_to_one_embodiment(model: WorldActionModel) -> None:
    window, clean, context, condition, _ = window_and_inputs(model)
    _, action = model(window, clean, context, condition)
    action[1].sum().backward()
    for name in ("state_encoder.layer1.W", "action_encoder.W2.W", "action_decoder.layer2.W"):
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        assert gradient[0].abs().sum() == 0
        assert gradient[1].abs().sum() > 0


@torch.no_grad()
def test_without_imagination_actions_read_the_past_and_no_noisy_video() -> None:
    imagining, plain = make_model(imagines=True), make_model(imagines=False)
    plain.load_state_dict(imagining.state_dict())  # the same weights fit both
    window, clean, context, condition, _ = window_and_inputs(plain)
    other = replace(window, video=torch.randn_like(window.video))
    video, action = plain(window, clean, context, condition)
    assert not video.any()
    assert torch.equal(plain(other, clean, context, condition)[1], action)
    assert not torch.allclose(plain(window, clean + 1, context, condition)[1], action)
    assert not torch.allclose(
        imagining(other, clean, context, condition)[1], imagining(window, clean, context, condition)[1]
    )


def test_auxiliary_head_predicts_a_window(model: WorldActionModel) -> None:
    window, _, context, _, _ = window_and_inputs(model)
    assert model.clone_behavior(window, context).shape == window.action.shape


def test_attention_rule_table() -> None:
    grid = VideoGrid(1, 1)
    layout = (
        video_layout(Kind.CLEAN_VIDEO, 0, 5, grid, 2)
        + video_layout(Kind.NOISY_VIDEO, 0, 5, grid, 2)
        + step_layout(Kind.ACTION, 0, 2, 2)
        + step_layout(Kind.STATE, 0, 2, 1)
    )
    mask = may_attend(layout, layout, state_self_only=True)
    names = ["c0", "c1", "c2", "c3", "c4", "n0", "n1", "n2", "n3", "n4", "a0", "a1", "a2", "a3", "s0", "s1"]
    read = {q: {k for k, seen in zip(names, row, strict=True) if seen} for q, row in zip(names, mask, strict=True)}
    assert read["c0"] == {"c0"}
    assert read["c1"] == read["c2"] == {"c0", "c1", "c2"}
    assert read["c4"] == {"c0", "c1", "c2", "c3", "c4"}
    assert read["n0"] == {"n0"}
    assert read["n2"] == read["a1"] == {"c0", "n1", "n2", "a0", "a1", "s0"}
    assert read["n3"] == read["a2"] == {"c0", "c1", "c2", "n3", "n4", "a2", "a3", "s1"}
    assert read["s1"] == {"s1"}
    attend_all = may_attend(layout, layout, state_self_only=False)
    assert torch.equal(attend_all[-1], attend_all[names.index("a3")])


def test_partial_blocks_are_refused(model: WorldActionModel) -> None:
    _, clean, context, condition, _ = window_and_inputs(model)
    cache = model.write_observation(clean[:, :, :1], context, None, condition[:, :, :1])
    with pytest.raises(ValueError, match="multiple of 2"):
        model.write_observation(clean[:, :, 1:2], context, cache, condition[:, :, 1:2])
    with pytest.raises(ValueError, match="image tokens missing"):
        model.embed_context(torch.zeros(1, 5, 16))
