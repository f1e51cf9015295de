"""Learned absolute positions, which spare a tiny network the detour through relative ones; off in official presets.

Rotary embeddings tell a token where others are relative to it, never where or which one it is itself. A large network
works that out by attending; a network of four layers has few steps to spare for it.
"""

import math

import torch
from torch import Tensor, nn

from lerobot_wam.model.config import ModelConfig
from lerobot_wam.model.layout import Kind, SequenceLayout, VideoGrid

HARMONICS = 4


class AbsolutePositions(nn.Module):
    """A learned linear map of what a token is: its kind, its place in the chunk and its cell in the picture."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.frames_per_chunk, self.steps = config.frames_per_chunk, config.actions_per_chunk
        width = len(Kind) + 1 + self.frames_per_chunk + self.steps + HARMONICS**2
        self.projection = nn.Linear(width, config.dim, bias=False)
        nn.init.normal_(self.projection.weight, std=0.3)

    def forward(self, layout: SequenceLayout, grid: VideoGrid) -> Tensor:
        """Return [L, D]."""
        return self.projection(self.features(layout, grid).to(self.projection.weight))

    def features(self, layout: SequenceLayout, grid: VideoGrid) -> Tensor:
        """Return one-hot kind, frame in the chunk (0: the window's first) and action step, and cosines of the cell."""
        is_video = layout.kind <= Kind.NOISY_VIDEO
        is_action = layout.kind == Kind.ACTION
        frame = torch.where(layout.position == 0, 0, 1 + (layout.position - 1) % self.frames_per_chunk)
        row = self._cosines((layout.row + 0.5) / grid.height)
        column = self._cosines((layout.column + 0.5) / grid.width)
        cell = (row.unsqueeze(2) * column.unsqueeze(1)).flatten(1)
        return torch.cat(
            [
                nn.functional.one_hot(layout.kind, len(Kind)),
                nn.functional.one_hot(frame * is_video, 1 + self.frames_per_chunk) * is_video[:, None],
                nn.functional.one_hot(layout.position % self.steps * is_action, self.steps) * is_action[:, None],
                cell * is_video[:, None],
            ],
            dim=1,
        )

    @staticmethod
    def _cosines(x: Tensor) -> Tensor:
        return torch.cos(math.pi * x.unsqueeze(1) * torch.arange(HARMONICS, device=x.device))
