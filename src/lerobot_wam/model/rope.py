"""Rotary position embeddings: 3-D for video tokens, 1-D for actions and states (spec §1.5)."""

import torch
from torch import Tensor

from lerobot_wam.model.layout import Kind, SequenceLayout

THETA = 10000.0


def axis_frequencies(axis_dim: int) -> Tensor:
    """Return the angular frequencies theta^(-2i/axis_dim), float64 [axis_dim / 2]."""
    return THETA ** -(torch.arange(0, axis_dim, 2, dtype=torch.float64) / axis_dim)


def rotation_angles(layout: SequenceLayout, head_dim: int) -> Tensor:
    """Return the rotation angle of every token and pair, float64 [L, head_dim / 2], in radians.

    A video token's pairs are split between time, height and width; each axis has frequencies of its own width.
    Actions and states turn all pairs by their 1-D position.
    """
    side_dim = 2 * (head_dim // 6)
    time_dim = head_dim - 2 * side_dim
    device = layout.position.device

    def turn(position_L: Tensor, axis_dim: int) -> Tensor:
        return torch.outer(position_L.to(torch.float64), axis_frequencies(axis_dim).to(device))

    video_LP = torch.cat(
        [turn(layout.position, time_dim), turn(layout.row, side_dim), turn(layout.column, side_dim)], dim=1
    )
    is_video_L1 = (layout.kind <= Kind.NOISY_VIDEO)[:, None]
    return torch.where(is_video_L1, video_LP, turn(layout.position, head_dim))


def rotations(layout: SequenceLayout, head_dim: int) -> Tensor:
    """Return the unit complex number of every token and pair, complex64 [L, head_dim / 2], from float64 angles."""
    angles_LP = rotation_angles(layout, head_dim)
    return torch.polar(torch.ones_like(angles_LP), angles_LP).to(torch.complex64)


def rotate(x_BLHK: Tensor, rotation_LP: Tensor) -> Tensor:
    """Turn the interleaved pairs (2i, 2i+1) of each head by their token's rotation, in fp32."""
    pairs_BLHP2 = x_BLHK.float().unflatten(-1, (-1, 2))
    turn_L1P = rotation_LP.unsqueeze(1)
    if torch.compiler.is_compiling():
        # The same product written out: torch's compiler fuses no complex numbers. Uncompiled, it would take 4x longer.
        (real, imaginary), (cos, sin) = pairs_BLHP2.unbind(-1), torch.view_as_real(turn_L1P).unbind(-1)
        turned = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
    else:
        turned = torch.view_as_real(torch.view_as_complex(pairs_BLHP2) * turn_L1P)
    return turned.flatten(-2).to(x_BLHK.dtype)
