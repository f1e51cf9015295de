"""Noise levels for training and sampling (spec §2.1, §3.1). sigma is the share of noise, timestep = 1000 sigma."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

TRAIN_STEPS = 1000
GIVEN = TRAIN_STEPS
"""The index behind the training table: no noise at all, and no loss."""
# First value of the official UniPC table before its shift; the official code keeps it in fp32.
UNIPC_START = float(np.float32(0.999))
NoiseMode = Literal["coupled", "decoupled", "high_noise", "independent"]


@dataclass(frozen=True)
class TrainingTable:
    """The training noise levels, noisiest first; each field is float32 [1000]."""

    sigma: Tensor
    timestep: Tensor
    weight: Tensor


@lru_cache(maxsize=8)
def training_table(shift: float = 5.0) -> TrainingTable:
    """Return the shifted table sigma = shift s / (1 + (shift - 1) s) with its bell-shaped loss weights of mean 1."""
    s = torch.linspace(1.0, 0.0, TRAIN_STEPS + 1)[:-1]
    sigma = shift * s / (1 + (shift - 1) * s)
    timestep = sigma * TRAIN_STEPS
    bell = torch.exp(-2 * ((timestep - TRAIN_STEPS / 2) / TRAIN_STEPS) ** 2)
    weight = bell - bell.min()
    return TrainingTable(sigma, timestep, weight * (TRAIN_STEPS / weight.sum()))


def sampling_sigmas(steps: int, shift: float = 5.0, start: float = 1.0, final: float = 0.0) -> Tensor:
    """Return the `steps + 1` noise levels of a sampling run, float32, noisiest first.

    Args:
        steps: Solver steps, at least 1.
        shift: Shift of the table.
        start: First value before the shift; `UNIPC_START` in the official table.
        final: Noise that is left at the end; above 0 for video in decoupled inference (spec §3.4).
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; sampling needs at least 1.")
    s = np.linspace(start, 0.0, steps + 1)[:-1]
    sigma = torch.from_numpy((shift * s / (1 + (shift - 1) * s)).astype(np.float32))
    if final > 0:
        largest = sigma[0].item()
        sigma = sigma * (largest - final) / largest + final
    return torch.cat([sigma, torch.tensor([final])])


@dataclass(frozen=True)
class NoiseConfig:
    """How noise levels are drawn in training.

    Attributes:
        mode: "coupled": video and action of a chunk share a level. "decoupled": video levels from Beta, actions
            uniform (Flash). "high_noise": shared levels from Beta. "independent": each modality its own uniform
            level, which also teaches to simulate and to label.
        beta_alpha: alpha of Beta(alpha, 1) in "decoupled" and "high_noise"; the share of noise grows with it.
        action_level_per_chunk: In "decoupled", draw one action level per chunk (paper) and not per step (code).
        pure_noise_probability: Chance that all of a chunk starts from pure noise, so that nothing but the
            observation, the state and the text can tell where it goes.
        given_probability: In "independent", chance that a chunk is given one of its modalities clean, as in simulating
            and labelling: its actions or its video, equally often.
        shift: Shift of the training table.
    """

    mode: NoiseMode = "coupled"
    beta_alpha: float = 7.0
    action_level_per_chunk: bool = True
    pure_noise_probability: float = 0.0
    given_probability: float = 0.0
    shift: float = 5.0

    def __post_init__(self) -> None:
        modes = NoiseMode.__args__  # type: ignore[attr-defined]
        if self.mode not in modes:
            raise ValueError(f"noise mode {self.mode!r} is unknown; choose one of {', '.join(modes)}.")
        if not 0 <= self.pure_noise_probability <= 1:
            raise ValueError(f"pure_noise_probability is {self.pure_noise_probability}; expected 0..1.")
        if not 0 <= self.given_probability <= (self.mode == "independent"):
            raise ValueError(
                f"given_probability is {self.given_probability} with noise mode {self.mode!r}; expected 0..1 with "
                "'independent', 0 with others."
            )


def draw_noise_levels(
    config: NoiseConfig,
    batch: int,
    chunks: int,
    frames_per_chunk: int,
    actions_per_chunk: int,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw indices into the training table.

    Returns:
        Video indices [B, 1 + chunks * frames_per_chunk], frame 0 with a level of its own and the frames of a chunk
        sharing theirs, and action indices [B, chunks * actions_per_chunk]; int64 on the CPU. `GIVEN` is what is clean.
    """

    def uniform(count: int) -> Tensor:
        return torch.randint(0, TRAIN_STEPS, (batch, count), generator=generator)

    def beta(count: int) -> Tensor:
        # Beta(alpha, 1) by inverting its distribution function; index 0 is pure noise.
        draw = torch.rand(batch, count, generator=generator) ** (1 / config.beta_alpha)
        return ((1 - draw) * TRAIN_STEPS).long().clamp(0, TRAIN_STEPS - 1)

    frame_BF = (beta if config.mode in ("decoupled", "high_noise") else uniform)(1 + chunks * frames_per_chunk)
    first_frame_B1, video_BN = frame_BF[:, :1], frame_BF[:, 1::frames_per_chunk]
    if config.mode in ("coupled", "high_noise"):
        action_BT = video_BN.repeat_interleave(actions_per_chunk, dim=1)
    elif config.mode == "independent" or config.action_level_per_chunk:
        action_BT = uniform(chunks).repeat_interleave(actions_per_chunk, dim=1)
    else:
        action_BT = uniform(chunks * actions_per_chunk)
    if config.pure_noise_probability > 0:
        pure_BN = torch.rand(batch, chunks, generator=generator) < config.pure_noise_probability
        video_BN = video_BN.masked_fill(pure_BN, 0)
        action_BT = action_BT.masked_fill(pure_BN.repeat_interleave(actions_per_chunk, dim=1), 0)
    if config.given_probability > 0:
        which_BN = torch.rand(batch, chunks, generator=generator) / config.given_probability
        video_given_BN, action_given_BN = which_BN < 0.5, (which_BN >= 0.5) & (which_BN < 1)
        video_BN = video_BN.masked_fill(video_given_BN, GIVEN)
        action_BT = action_BT.masked_fill(action_given_BN.repeat_interleave(actions_per_chunk, dim=1), GIVEN)
    return torch.cat([first_frame_B1, video_BN.repeat_interleave(frames_per_chunk, dim=1)], dim=1), action_BT
