"""The training loss against the official implementation's: from recorded latents, and from pixels and token ids."""

import json
from pathlib import Path
from typing import Any

import official
import pytest
import torch
from golden import build, read, under
from torch import Tensor

from lerobot_wam.diffusion.objective import Draws, Losses, ObjectiveConfig, TrainingWindow, joint_loss
from lerobot_wam.diffusion.schedule import training_table
from lerobot_wam.model.world_action_model import WorldActionModel

LOSS_RTOL = 1e-5
GRADIENT_RTOL = 1e-4
CASES = ["standard", "decoupled", "high_noise", "5B_standard"]


def head(golden_dir: Path, weights: str, sample: dict[str, Tensor]) -> WorldActionModel:
    """The network of a loss file."""
    tensors, _ = read(golden_dir / f"{weights}.safetensors")
    model_weights = under(tensors, "w.model.")
    conditioned = model_weights["patch_embedding.weight"].shape[1] > sample["mid.clean_x"].shape[1]
    _, meta = read(golden_dir / f"a_dit_train_{'i2v' if conditioned else 'ti2v'}.safetensors")
    return build(model_weights, json.loads(meta["config"]), state_self_only=True)


def window_of(sample: dict[str, Tensor], model: WorldActionModel, **replaced: Tensor) -> TrainingWindow:
    latent = sample["mid.clean_x"]
    batch, _, frames, _, _ = latent.shape
    conditioned = model.config.condition_channels > 0
    parts: dict[str, Any] = {
        "latent": latent,
        "frame_mask": torch.ones(batch, frames, dtype=torch.bool),
        "action": sample["in.action"],
        "action_mask": sample["in.action_mask"] & sample["in.has_real_action"][:, None, None],
        "state": sample["in.state"],
        "category": torch.zeros(batch, dtype=torch.int64),
        "text": sample["mid.context"],
        "anchor_frame": torch.zeros(batch, 0),  # read by the visual summary alone, which these networks lack
        "image": sample["mid.clip_feature"],
        "condition": sample["mid.y"] if conditioned else None,
    }
    return TrainingWindow(**parts | replaced)


def recorded_draws(sample: dict[str, Tensor], model: WorldActionModel) -> Draws:
    """What the official code drew, in its order; Beta levels were not recorded and are read off the timesteps."""
    drawn = iter([sample[name] for name in sorted(k for k in sample if k.startswith("rand."))])
    video_noise = next(drawn)
    table, per_chunk = training_table(), model.config.frames_per_chunk

    def index(timestep: Tensor) -> Tensor:
        match = timestep[..., None] == table.timestep
        assert match.any(dim=-1).all()
        return match.int().argmax(dim=-1)

    rest = list(drawn)
    if rest[0].dtype == torch.int64:
        raw = rest.pop(0)
        video_index = torch.cat([raw[:, :1], raw[:, 1::per_chunk].repeat_interleave(per_chunk, dim=1)], dim=1)
        assert torch.equal(video_index, index(sample["mid.timestep"]))
    else:
        video_index = index(sample["mid.timestep"])
    action_noise, *action_levels = rest
    action_index = action_levels[0] if action_levels else index(sample["mid.timestep_action"])
    assert torch.equal(table.timestep[action_index], sample["mid.timestep_action"])
    return Draws(video_noise, video_index, action_noise, action_index)


def check(losses: Losses, model: WorldActionModel, sample: dict[str, Tensor]) -> None:
    """Losses and the gradient norm of every parameter."""
    for ours, name in ((losses.total, "loss"), (losses.video, "dynamics_loss"), (losses.action, "action_loss")):
        torch.testing.assert_close(ours, sample[f"out.{name}"], rtol=LOSS_RTOL, atol=0)
    losses.total.mean().backward()
    expected = under(sample, "gradnorm.")
    assert expected.keys() == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad.norm()[None], expected[name], rtol=GRADIENT_RTOL, atol=1e-8, msg=name)


@pytest.mark.parametrize("case", CASES)
def test_loss_from_latents(golden_dir: Path, case: str) -> None:
    sample, meta = read(golden_dir / f"c_train_loss_{case}.safetensors")
    model = head(golden_dir, meta["weights"], sample)
    entering: dict[str, Any] = {}
    leaving: list[tuple[Tensor, Tensor]] = []
    model.register_forward_pre_hook(lambda _m, args: entering.update(vars(args[0])))
    model.register_forward_hook(lambda _m, _args, out: leaving.append(out))
    draws = recorded_draws(sample, model)
    losses = joint_loss(model, window_of(sample, model), ObjectiveConfig(averaging="official"), draws=draws)
    for name, recorded in (
        ("video", "noisy_latents"),
        ("video_timestep", "timestep"),
        ("action", "action"),
        ("action_timestep", "timestep_action"),
        ("state", "state"),
    ):
        torch.testing.assert_close(entering[name], sample[f"mid.{recorded}"], rtol=0, atol=1e-6, msg=recorded)
    for ours, name in zip(leaving[0], ("video_pred", "action_pred"), strict=True):
        torch.testing.assert_close(ours, sample[f"mid.{name}"], rtol=0, atol=1e-5)
    check(losses, model, sample)


@pytest.mark.parametrize("case", CASES)
def test_loss_from_pixels_and_token_ids(golden_dir: Path, case: str) -> None:
    sample, meta = read(golden_dir / f"c_train_loss_{case}.safetensors")
    model, weights = head(golden_dir, meta["weights"], sample), golden_dir / f"{meta['weights']}.safetensors"
    codec = official.video_codec(weights)
    video = official.pixels(sample["in.images"], sample["mid.clean_x"], codec.spatial_stride)
    ids, real = sample["in.text"][0], sample["in.text_attention_mask"][0].bool()
    text, _ = official.text_codec(weights, lambda _: ids[real].tolist(), len(ids)).encode(["any"])
    encoded = {
        "latent": codec.encode(video),
        "text": text,
        "image": official.image_codec(weights, video[:, :, 0], sample["mid.clip_feature"]).encode(video[:, :, 0]),
    }
    if model.config.condition_channels:
        encoded["condition"] = codec.condition(video[:, :, 0], sample["mid.clean_x"].shape[2])
    draws = recorded_draws(sample, model)
    losses = joint_loss(model, window_of(sample, model, **encoded), ObjectiveConfig(averaging="official"), draws=draws)
    check(losses, model, sample)
