"""Encoding what robots see as it comes: once the last frame is there, its group alone is left to encode (spec §1.7)."""

from collections.abc import Sequence

import torch

from lerobot_wam.codecs.video import TEMPORAL_STRIDE, VideoCodec
from lerobot_wam.runtime.state import Session


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
        states = [s.stream.state for s in due if s.stream.state is not None]
        joined = tuple(torch.cat(parts) for parts in zip(*states, strict=True)) if states else None
        latent, state = codec.encode_next(torch.stack(clips).to(device), joined)
        for row, session in enumerate(due):
            session.stream.latents.append(latent[row : row + 1])
            session.stream.state = tuple(part[row : row + 1] for part in state)
