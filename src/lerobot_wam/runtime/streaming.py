"""Encoding what robots see as it comes, so that little is left to encode when a chunk is due (spec §1.6, §1.7).

Of a block of frames that is its last group; of a new window's first-frame conditioning, what the first chunk reads.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from lerobot_wam.codecs.video import TEMPORAL_STRIDE, VideoCodec, VideoState
from lerobot_wam.runtime.state import Session, Stream


def whole_block(clip: Tensor, first: Tensor, length: int) -> list[Tensor]:
    """Complete the frames of one call to a block that begins with `first`; a single frame stays alone.

    Args:
        clip: Frames seen since the last call, [T, 3, H, W].
        first: Frame that the block begins with where the clip lacks it, [3, H, W].
        length: Frames of a block.

    Raises:
        ValueError: A clip of another length than 1, half a block, all but its first frame, or a block.
    """
    if len(clip) in (1, length):
        return list(clip)
    if len(clip) not in (length // 2, length - 1):
        raise ValueError(
            f"{len(clip)} frames in one call; expected 1, {length // 2}, {length - 1} or {length}: "
            "pass what was seen since the last call at the trained spacing."
        )
    return [first, *clip.repeat_interleave((length - 1) // len(clip), dim=0)]


def encode_arrived(codec: VideoCodec, sessions: Sequence[Session], device: torch.device) -> None:
    """Encode every latent frame whose pixels are complete; sessions that wait for the same one are one batch.

    Args:
        codec: Pixels to latents.
        sessions: Each with the frames of its block so far, and the stream of what is encoded of them.
        device: Where to encode.
    """
    arrived = max((len(session.frames) for session in sessions), default=0)
    for place in range(1 + (arrived - 1) // TEMPORAL_STRIDE):
        last = 1 + TEMPORAL_STRIDE * place
        due = [s for s in sessions if len(s.stream.latents) == place and len(s.frames) >= last]
        if not due:
            continue
        clips = [torch.stack(s.frames[max(0, last - TEMPORAL_STRIDE) : last], dim=1) for s in due]
        _extend([session.stream for session in due], partial(codec.encode_next, torch.stack(clips).to(device)))


def encode_condition(codec: VideoCodec, sessions: Sequence[Session], frames: Tensor, count: int) -> None:
    """Encode the first-frame conditioning of windows up to a latent frame; see `VideoCodec.condition`.

    Args:
        codec: Pixels to latents.
        sessions: In windows of any age; those of models without conditioning are left alone.
        frames: The first frame [B, 3, H, W] of each new window; of the others any of its size.
        count: Latent frames that each shall have.
    """
    for place in range(count):
        streams = {row: s.condition for row, s in enumerate(sessions) if s.condition is not None}
        due = {row: stream for row, stream in streams.items() if len(stream.latents) == place}
        if due:
            _extend(list(due.values()), partial(codec.condition_next, frames[list(due)]))


def joined_condition(sessions: Sequence[Session], first: int, count: int) -> Tensor | None:
    """Join the conditioning channels of `count` latent frames of the sessions' windows; None for models without."""
    streams = [session.condition for session in sessions if session.condition is not None]
    return torch.cat([torch.cat(s.latents[first : first + count], dim=2) for s in streams]) if streams else None


def _extend(streams: list[Stream], encode: Callable[[VideoState | None], tuple[Tensor, VideoState]]) -> None:
    """Add the next latent frame to streams of one length."""
    states = [stream.state for stream in streams if stream.state is not None]
    latent, state = encode(tuple(torch.cat(parts) for parts in zip(*states, strict=True)) if states else None)
    for row, stream in enumerate(streams):
        stream.latents.append(latent[row : row + 1])
        stream.state = tuple(part[row : row + 1] for part in state)
