"""Which part of a fixed-size window is real: it ends with its episode and where the task text changes (spec §2.3).

Offsets are counted in control steps from the window's first frame.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def steps_until_task_change(episode_index: np.ndarray, task_index: np.ndarray) -> np.ndarray | None:
    """Count, for every dataset frame, the steps until its episode's next other task.

    Args:
        episode_index: Episode of each frame [N], in dataset order.
        task_index: Task of each frame [N].

    Returns:
        Steps [N], at least 1, counted to the end of the episode where the task stays; None if every episode has
        one task, the usual case.
    """
    starts = np.flatnonzero(np.diff(episode_index, prepend=-1) | np.diff(task_index, prepend=-1))
    if len(starts) == len(np.unique(episode_index)):
        return None
    ends = np.append(starts[1:], len(task_index))
    segment = np.searchsorted(starts, np.arange(len(task_index)), side="right") - 1
    return ends[segment] - np.arange(len(task_index))


def hold_last(x: Tensor, real: Tensor) -> Tensor:
    """Repeat each sample's last real entry of x [B, T, ...] over the rest, as LeRobot does behind an episode's end.

    Args:
        x: Values in time.
        real: Which of them belong to the window, [B, T]; True first, then False.
    """
    last_B1 = real.sum(dim=1, keepdim=True).clamp(min=1) - 1
    index_BT = torch.arange(x.shape[1], device=x.device).minimum(last_B1)
    return x[torch.arange(len(x), device=x.device)[:, None], index_BT]


def latent_frame_mask(frame_is_pad: Tensor, frames_per_latent: int) -> Tensor:
    """Return the mask [B, F] of latents that show only real frames, from the frames' padding flags [B, T].

    Frame 0 is a latent of its own; every later latent is made of `frames_per_latent` frames.
    """
    first = ~frame_is_pad[:, :1]
    later = ~frame_is_pad[:, 1:].unflatten(1, (-1, frames_per_latent)).any(dim=2)
    return torch.cat([first, later], dim=1)


def cut_batch(batch: Mapping[str, Any], rows: Tensor, frames: int, steps: int) -> dict[str, Any]:
    """Return some samples of a LeRobot batch, cut after a number of frames and action steps.

    Args:
        batch: Values per sample: tensors [B, T, ...] under `observation.*`, [B, H, ...] under `action*`, tensors [B]
            and lists of B under other keys. Anything else is passed on.
        rows: Indices of the samples [R].
        frames: Frames to keep.
        steps: Action steps to keep.
    """
    cut: dict[str, Any] = {}
    for key, value in batch.items():
        if isinstance(value, Tensor):
            picked = value[rows.to(value.device)]
            length = frames if key.startswith("observation.") else steps if key.startswith("action") else None
            cut[key] = picked if length is None else picked[:, :length]
        else:
            cut[key] = [value[row] for row in rows.tolist()] if isinstance(value, list) else value
    return cut


def real_chunks(action_real: Tensor, frame_mask: Tensor, chunks: int) -> Tensor:
    """Count each sample's chunks up to its last one with a real action or latent: int64 [B], at least 1.

    Args:
        action_real: Real steps [B, T].
        frame_mask: Real latents [B, F], frame 0 first.
        chunks: Chunks in the window.
    """
    has_video = frame_mask[:, 1:].unflatten(1, (chunks, -1)).any(dim=2)
    real_BN = has_video | action_real.unflatten(1, (chunks, -1)).any(dim=2)
    return (real_BN * torch.arange(1, chunks + 1, device=real_BN.device)).amax(dim=1).clamp(min=1)
