"""The joint training loss: rectified-flow velocity of video and actions (spec §2.1; design, decision 5).

L = 1/B sum_b w_b (video_b + action_b), each averaged over its own sample's real frames, steps and dimensions. No
denominator crosses samples, so batch size, accumulation and process count never change it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lerobot_wam.diffusion.schedule import GIVEN, NoiseConfig, draw_noise_levels, training_table
from lerobot_wam.model.config import ModelConfig
from lerobot_wam.model.inputs import NoisyWindow
from lerobot_wam.model.world_action_model import WorldActionModel


@dataclass(frozen=True)
class ObjectiveConfig:
    """Terms and averaging of the loss.

    Attributes:
        noise: How noise levels are drawn.
        timestep_weighting: Weigh errors with the bell-shaped training weights (zero at pure noise).
        first_frame_loss: Denoise frame 0 as well, which sees only itself (official); otherwise it is left out.
        averaging: "sample" as above; "official" averages over the batch, all frames, padded steps and dimensions.
        video_weight: Factor of the video loss.
        action_weight: Factor of the action loss.
        auxiliary_bc_weight: Factor of the behaviour-cloning loss; used when the model has that head.
    """

    noise: NoiseConfig = field(default_factory=NoiseConfig)
    timestep_weighting: bool = True
    first_frame_loss: bool = True
    averaging: Literal["sample", "official"] = "sample"
    video_weight: float = 1.0
    action_weight: float = 1.0
    auxiliary_bc_weight: float = 1.0


@dataclass(frozen=True)
class TrainingWindow:
    """A batch of clean windows: F = 1 + frames_per_chunk * N latent frames, N chunks of actions.

    Attributes:
        latent: Clean latents [B, C, F, h, w].
        frame_mask: True for latent frames that show real video, [B, F].
        action: Normalised actions [B, T, A]; anything where masked.
        action_mask: True for real steps and dimensions, [B, T, A]; all False without actions.
        state: Normalised states at the chunks' first steps, [B, N, S].
        category: Embodiment index [B].
        text: Text tokens [B, L, text_dim].
        anchor_frame: The frame each chunk starts from, pixels in [-1, 1], [B, N, 3, H, W].
        image: First-frame image tokens or None.
        condition: First-frame conditioning channels [B, Cc, F, h, w] or None.
        weight: Weight of each sample [B], or None for 1.
        channel_weight: Relative weight of each latent channel [C], or None for 1.
        has_robot: Samples with a robot's states and actions [B]; None for all. Nothing of the others' states and
            actions is read, and no weight of states or actions learns from them.
    """

    latent: Tensor
    frame_mask: Tensor
    action: Tensor
    action_mask: Tensor
    state: Tensor
    category: Tensor
    text: Tensor
    anchor_frame: Tensor
    image: Tensor | None = None
    condition: Tensor | None = None
    weight: Tensor | None = None
    channel_weight: Tensor | None = None
    has_robot: Tensor | None = None


@dataclass(frozen=True)
class Draws:
    """Every random number behind one loss.

    Attributes:
        video_noise: [B, C, F, h, w].
        video_index: Indices into the training table, int64 [B, F]; frame 0 has its own, a chunk's frames share one.
            `GIVEN` is clean and not learned.
        action_noise: [B, T, A].
        action_index: Likewise, int64 [B, T].
    """

    video_noise: Tensor
    video_index: Tensor
    action_noise: Tensor
    action_index: Tensor


@dataclass(frozen=True)
class Losses:
    """Per-sample losses, unweighted, each [B]."""

    total: Tensor
    video: Tensor
    action: Tensor
    auxiliary_bc: Tensor


def ragged_joint_loss(
    model: WorldActionModel,
    window_of: Callable[[Tensor, int], TrainingWindow],
    chunks_B: Tensor,
    config: ObjectiveConfig,
    generators: Sequence[torch.Generator],
) -> Losses:
    """Compute `joint_loss` with samples of equal length together, so that short ones do not pay for the longest.

    Args:
        model: The network.
        window_of: Builds the window of some samples (row indices), cut after a number of chunks.
        chunks_B: Chunks of each sample that hold anything real, int64 [B].
        config: Terms and averaging.
        generators: Per sample, a CPU generator of all its random draws.

    Returns:
        Per-sample losses in the order of the batch.
    """
    rows, parts = [], []
    for chunks in chunks_B.unique().tolist():
        rows.append((chunks_B == chunks).nonzero().flatten())
        own = [generators[row] for row in rows[-1].tolist()]
        parts.append(joint_loss(model, window_of(rows[-1], chunks), config, own))
    order = torch.cat(rows).argsort()
    return Losses(*(torch.cat([getattr(part, f.name) for part in parts])[order] for f in fields(Losses)))


def draw(
    window: TrainingWindow, sizes: ModelConfig, noise: NoiseConfig, generators: Sequence[torch.Generator]
) -> Draws:
    """Draw noise and noise levels for a window, each sample with a CPU generator of its own.

    What a sample is trained on does not depend on the others of its batch, nor on which process has it.
    """
    per_chunk, per_action = sizes.frames_per_chunk, sizes.actions_per_chunk
    chunks = (window.latent.shape[2] - 1) // per_chunk
    video_noise, video_index, action_noise, action_index = [], [], [], []
    for generator in generators:
        video_noise.append(torch.randn(window.latent.shape[1:], generator=generator))
        levels = draw_noise_levels(noise, 1, chunks, per_chunk, per_action, generator)
        video_index.append(levels[0])
        action_index.append(levels[1])
        action_noise.append(torch.randn(window.action.shape[1:], generator=generator))
    device = window.latent.device
    return Draws(
        torch.stack(video_noise).to(window.latent),
        torch.cat(video_index).to(device),
        torch.stack(action_noise).to(window.action),
        torch.cat(action_index).to(device),
    )


def joint_loss(
    model: WorldActionModel,
    window: TrainingWindow,
    config: ObjectiveConfig,
    generators: Sequence[torch.Generator] = (),
    draws: Draws | None = None,
) -> Losses:
    """Noise a window, denoise it with teacher forcing and compare velocities.

    Args:
        model: The network.
        window: Clean data.
        config: Terms and averaging.
        generators: Per sample, a CPU generator of all its random draws.
        draws: What was drawn before, in place of `generators`.

    Returns:
        Per-sample losses; the training loss is the mean of `total`.

    Raises:
        ValueError: Video without actions for a network that imagines none.
    """
    if not model.config.imagines and window.has_robot is not None:
        raise ValueError(
            "video without actions teaches a policy with imagines=false nothing: leave those datasets out, or set "
            "--policy.imagines=true"
        )
    latent, action = window.latent, window.action
    draws = draws or draw(window, model.config, config.noise, generators)
    table = training_table(config.noise.shift)
    weight = table.weight if config.timestep_weighting else torch.ones_like(table.weight)
    # One more entry, all zero, for what is given.
    sigma, timestep, weight = (F.pad(x, (0, 1)).to(latent.device) for x in (table.sigma, table.timestep, weight))

    first = 0 if config.first_frame_loss else 1
    video_index, action_index = draws.video_index[:, first:], draws.action_index
    video_noise, action_noise = draws.video_noise[:, :, first:], draws.action_noise
    target_latent, frame_mask = latent[:, :, first:], window.frame_mask[:, first:]

    video_sigma = sigma[video_index][:, None, :, None, None]
    action_sigma = sigma[action_index][:, :, None]
    context = model.embed_context(window.text, window.image)
    condition = window.condition
    noisy = NoisyWindow(
        video=(1 - video_sigma) * target_latent + video_sigma * video_noise,
        video_timestep=timestep[video_index],
        action=(1 - action_sigma) * action + action_sigma * action_noise,
        action_timestep=timestep[action_index],
        state=window.state,
        category=window.category,
        condition=None if condition is None else condition[:, :, first:],
        summary=model.summarise(window.anchor_frame, window.state, window.category, context, window.has_robot),
        has_robot=window.has_robot,
    )
    past = latent.shape[2] - model.config.frames_per_chunk  # nobody reads the last chunk's clean copy
    clean_condition = None if condition is None else condition[:, :, :past]
    video, actions = model(noisy, latent[:, :, :past], context, clean_condition)

    video_error = (video.float() - (video_noise - target_latent).float()) ** 2
    if window.channel_weight is not None:
        video_error = video_error * window.channel_weight[:, None, None, None]
    video_error_BF = video_error.mean(dim=(1, 3, 4)) * weight[video_index]
    action_error_BTA = (actions.float() - (action_noise - action).float()) ** 2 * weight[action_index][:, :, None]

    if config.averaging == "official":
        video_loss = video_error_BF.mean(dim=1)
        action_loss = (action_error_BTA * window.action_mask).mean(dim=(1, 2))
    else:
        video_loss = _masked_mean(video_error_BF, frame_mask & (video_index != GIVEN))
        action_loss = _masked_mean(action_error_BTA, window.action_mask & (action_index != GIVEN)[:, :, None])
    if not model.config.imagines:
        video_loss = torch.zeros_like(action_loss)
    bc_loss = torch.zeros_like(action_loss)
    if model.config.auxiliary_bc:
        bc_loss = _masked_mean((model.clone_behavior(noisy, context).float() - action) ** 2, window.action_mask)
    total = config.video_weight * video_loss + config.action_weight * action_loss + config.auxiliary_bc_weight * bc_loss
    if window.weight is not None:
        total = total * window.weight
    return Losses(total, video_loss, action_loss, bc_loss)


def _masked_mean(error: Tensor, mask: Tensor) -> Tensor:
    """Average each sample over its own True entries; 0 where it has none."""
    dims = tuple(range(1, error.ndim))
    return (error * mask).sum(dim=dims) / mask.sum(dim=dims).clamp(min=1)
