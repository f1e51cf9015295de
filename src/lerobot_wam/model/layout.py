"""Who is in the sequence and who may look at whom: the one definition that training, cached inference and docs share.

Source: spec §1.4. A window holds a clean copy of the video, its noisy copy, the actions and the states. Frame 0
belongs to block -1, frame f >= 1 to block (f - 1) // frames_per_chunk; actions and states belong to their chunk's
block. Positions restart with every window.
"""

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor, nn


class Kind(IntEnum):
    """What a token stands for."""

    CLEAN_VIDEO = 0
    NOISY_VIDEO = 1
    ACTION = 2
    STATE = 3


@dataclass(frozen=True)
class VideoGrid:
    """Tokens of one latent frame."""

    height: int
    width: int

    @property
    def tokens(self) -> int:
        """Tokens per latent frame."""
        return self.height * self.width


@dataclass(frozen=True)
class SequenceLayout:
    """Per-token facts of one sequence of L tokens; every field is an int64 tensor [L].

    Attributes:
        kind: `Kind` of the token.
        block: Chunk index; -1 for frame 0.
        position: Latent frame index for video tokens, action step for actions, chunk index for states.
        row: Patch row of video tokens, else 0.
        column: Patch column of video tokens, else 0.
    """

    kind: Tensor
    block: Tensor
    position: Tensor
    row: Tensor
    column: Tensor

    def __len__(self) -> int:
        return self.kind.numel()

    def __add__(self, other: "SequenceLayout") -> "SequenceLayout":
        """Return the layout of `self` followed by `other`."""
        return SequenceLayout(
            *(torch.cat([getattr(self, name), getattr(other, name)]) for name in self.__dataclass_fields__)
        )

    def __getitem__(self, tokens: Tensor) -> "SequenceLayout":
        """Return the layout of the tokens that a boolean mask [L] picks."""
        return SequenceLayout(*(getattr(self, name)[tokens] for name in self.__dataclass_fields__))

    def to(self, device: torch.device) -> "SequenceLayout":
        """Copy to `device`."""
        return SequenceLayout(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


NO_TOKENS = SequenceLayout(*(torch.zeros(0, dtype=torch.int64) for _ in SequenceLayout.__dataclass_fields__))
Segment = tuple[slice, slice]


def video_layout(kind: Kind, first_frame: int, frames: int, grid: VideoGrid, frames_per_chunk: int) -> SequenceLayout:
    """Lay out `frames` latent frames that start at index `first_frame` of the window."""
    frame_F = torch.arange(first_frame, first_frame + frames)
    frame_L = frame_F.repeat_interleave(grid.tokens)
    cell_L = torch.arange(grid.tokens).repeat(frames)
    return SequenceLayout(
        kind=torch.full_like(frame_L, kind),
        block=torch.div(frame_L - 1, frames_per_chunk, rounding_mode="floor"),
        position=frame_L,
        row=torch.div(cell_L, grid.width, rounding_mode="floor"),
        column=cell_L % grid.width,
    )


def step_layout(kind: Kind, first_block: int, blocks: int, per_block: int) -> SequenceLayout:
    """Lay out actions or states: `per_block` tokens in each of `blocks` chunks from `first_block` on."""
    position_L = torch.arange(first_block * per_block, (first_block + blocks) * per_block)
    zero_L = torch.zeros_like(position_L)
    return SequenceLayout(
        kind=torch.full_like(position_L, kind),
        block=torch.div(position_L, per_block, rounding_mode="floor"),
        position=position_L,
        row=zero_L,
        column=zero_L,
    )


def may_attend(query: SequenceLayout, key: SequenceLayout, state_self_only: bool) -> Tensor:
    """Return the boolean mask [Lq, Lk] that is True where a query token may read a key token.

    Args:
        query: Layout of the Lq query tokens.
        key: Layout of the Lk key tokens; with a cache these are the cached tokens followed by the new ones.
        state_self_only: Whether a state reads nothing but itself (official training) or reads like an action of
            its chunk (official inference).
    """
    q_kind, q_block = query.kind[:, None], query.block[:, None]
    k_kind, k_block = key.kind[None, :], key.block[None, :]
    k_clean = k_kind == Kind.CLEAN_VIDEO
    clean = (q_kind == Kind.CLEAN_VIDEO) & k_clean & (k_block <= q_block)
    # A noisy frame 0 sees only itself: block -1 has no clean past, and k_block < q_block is never true for it.
    denoising = (q_kind != Kind.CLEAN_VIDEO) & torch.where(k_clean, k_block < q_block, k_block == q_block)
    if state_self_only:
        itself = (k_kind == Kind.STATE) & (query.position[:, None] == key.position[None, :])
        denoising = torch.where(q_kind == Kind.STATE, itself, denoising)
    return clean | denoising


def segments(mask_LS: Tensor) -> tuple[Segment, ...] | None:
    """Split a mask into runs of queries that each read one range of keys, or return None where it is no such mask.

    Attention over the ranges needs no mask, for which the fastest kernels have no place. The closed loop's masks are
    of this kind, those of teacher forcing are not.
    """
    first = torch.cat([torch.tensor([True]), (mask_LS[1:] != mask_LS[:-1]).any(dim=1)]).nonzero().flatten().tolist()
    found = []
    for start, stop in zip(first, [*first[1:], len(mask_LS)], strict=True):
        keys = mask_LS[start].nonzero().flatten()
        low, high = int(keys[0]), int(keys[-1]) + 1
        if high - low != len(keys):
            return None
        found.append((slice(start, stop), slice(low, high)))
    return tuple(found)


def hide_robots(mask_LS: Tensor, layout: SequenceLayout, has_robot_B: Tensor) -> Tensor:
    """Return the mask [B, 1, L, S] that keeps video without a robot from reading states and actions.

    Args:
        mask_LS: What the L new tokens may read of the S cached and new ones.
        layout: Layout of the new tokens, which are the last keys.
        has_robot_B: Samples whose states and actions are a robot's; the others hold anything there.
    """
    robot_L = layout.kind >= Kind.ACTION
    hidden_LS = nn.functional.pad(~robot_L[:, None] & robot_L, (mask_LS.shape[1] - len(robot_L), 0))
    return (mask_LS & ~(hidden_LS & ~has_robot_B[:, None, None])).unsqueeze(1)
