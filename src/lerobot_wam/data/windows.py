"""Which part of a fixed-size window is real: it ends with its episode and where the task text changes (spec §2.3).

Offsets are counted in control steps from the window's first frame.
"""

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


def latent_frame_mask(frame_is_pad: Tensor, frames_per_latent: int) -> Tensor:
    """Return the mask [B, F] of latents that show only real frames, from the frames' padding flags [B, T].

    Frame 0 is a latent of its own; every later latent is made of `frames_per_latent` frames.
    """
    first = ~frame_is_pad[:, :1]
    later = ~frame_is_pad[:, 1:].unflatten(1, (-1, frames_per_latent)).any(dim=2)
    return torch.cat([first, later], dim=1)


def real_chunks(action_mask: Tensor, frame_mask: Tensor, chunks: int) -> int:
    """Count the chunks up to the last one in which any sample of the batch has a real action or latent; at least 1.

    Args:
        action_mask: Real steps [B, T].
        frame_mask: Real latents [B, F], frame 0 first.
        chunks: Chunks in the window.
    """
    has_action = action_mask.unflatten(1, (chunks, -1)).any(dim=2).any(dim=0)
    has_video = frame_mask[:, 1:].unflatten(1, (chunks, -1)).any(dim=2).any(dim=0)
    real = torch.nonzero(has_action | has_video).flatten()
    return int(real[-1]) + 1 if len(real) else 1
