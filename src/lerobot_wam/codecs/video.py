"""Video codecs: pixels to latents and back, causal in time like Wan's VAE (1+4k frames become 1+k latents).

Shape legend: B batch, T raw frames, F latent frames, H W pixels, h w latent grid, C latent channels,
N = 3*4*p*p numbers of one space-time block, p patch edge in pixels.
"""

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

TEMPORAL_STRIDE = 4
"""Raw frames per latent frame, first frame excepted; shared by every Wan-style codec (spec §1.7)."""
CONDITION_MASK_CHANNELS = 4
"""Channels that say which latent frame is given, ahead of the latents, in first-frame conditioning (spec §1.6)."""

# The prior: standard deviation of a block's orthonormal coefficients for pixels in [-1, 1], seen by a fixed camera.
# Natural images fall off as 1/frequency. A share of what is seen moves: an edge of spatial frequency f that travels
# at v pixels per frame has temporal frequencies up to v*f, so sharp detail changes as fast as it likes, flat areas
# slowly. Round figures that suit tabletop scenes of 64 to 128 pixels. Stored latents depend on them: never change one.
_AMPLITUDE = (0.15, 0.05, 0.04)  # luma, red-blue, green-magenta: std times spatial frequency (cycles per pixel)
_MOVING = (0.5, 0.25, 0.25)  # share of that which moves; arms are mostly grey
_SPEED = 4.0  # pixels per frame
_CORNER = 1 / 64  # spatial frequency below which the spectrum is flat: things span tens of pixels
_BRIGHTNESS = 0.3  # standard deviation of a whole scene's brightness


VideoState = tuple[Tensor, ...]
"""What a codec remembers of the frames that it has encoded of a clip; every tensor's first dimension is the batch."""


class VideoCodec(Protocol):
    """What the model needs from a video tokeniser. It works on the device of what it is given.

    Codecs are causal: the first frame is encoded alone, then every group of four under what is remembered of the frames
    before it. So a clip can be encoded as its frames arrive, and gives what the whole clip gives at once.
    """

    latent_channels: int
    spatial_stride: int
    temporal_stride: int
    channel_weight: Tensor
    """Relative loss weight per channel [C], mean 1."""

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, F, h, w) for ``frames`` raw frames of ``height`` x ``width`` pixels.

        Raises:
            ValueError: frames is not 1+4k, or a size is not a multiple of the latent cell.
        """
        cell = self.spatial_stride
        if frames < 1 or (frames - 1) % TEMPORAL_STRIDE:
            raise ValueError(
                f"the clip has {frames} frames, expected 1+4k (1, 5, 9, ...): cut frames or repeat the last"
            )
        if height < 1 or width < 1 or height % cell or width % cell:
            raise ValueError(
                f"frames are {height}x{width} pixels, expected multiples of the latent cell, {cell}: resize the views"
            )
        return self.latent_channels, 1 + (frames - 1) // TEMPORAL_STRIDE, height // cell, width // cell

    def encode(self, video: Tensor) -> Tensor:
        """[B,3,T,H,W] in [-1,1] to [B,C,F,h,w]."""
        ...

    def encode_next(self, frames: Tensor, state: VideoState | None = None) -> tuple[Tensor, VideoState]:
        """Encode the frames that follow in a clip. Nothing is kept here: states of several clips join by `torch.cat`.

        Args:
            frames: [B,3,1,H,W] in [-1,1] to begin a clip, [B,3,4,H,W] to go on with it.
            state: What the call before returned; None begins a clip.

        Returns:
            One latent frame [B,C,1,h,w], and the state for the next call.

        Raises:
            ValueError: Another number of frames.
        """
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """[B,C,F,h,w] to [B,3,T,H,W]."""
        ...

    def condition(self, frame: Tensor, frames: int) -> Tensor:
        """First-frame conditioning of a window (spec §1.6): which latent frame is given, and the latents it gives.

        Args:
            frame: the window's first frame [B,3,H,W] in [-1,1].
            frames: latent frames of the window, F.

        Returns:
            [B,4+C,F,h,w]: four channels that are 1 at latent frame 0 and 0 elsewhere, then the latents of the clip
            that shows the frame and grey from there on.
        """
        parts = []
        state: VideoState | None = None
        for _ in range(frames):
            part, state = self.condition_next(frame, state)
            parts.append(part)
        return torch.cat(parts, dim=2)

    def condition_next(self, frame: Tensor, state: VideoState | None = None) -> tuple[Tensor, VideoState]:
        """One latent frame [B,4+C,1,h,w] of `condition`, and the state for the next call; None begins."""
        clip = frame[:, :, None]
        if state is not None:
            clip = torch.zeros_like(clip).expand(-1, -1, TEMPORAL_STRIDE, -1, -1)
        latent, after = self.encode_next(clip, state)
        mask = latent.new_full((len(latent), CONDITION_MASK_CHANNELS, *latent.shape[2:]), float(state is None))
        return torch.cat([mask, latent], dim=1), after

    def _check_group(self, frames: Tensor, state: VideoState | None) -> None:
        """Refuse frames that are not one latent frame's."""
        expected = 1 if state is None else TEMPORAL_STRIDE
        if frames.shape[2] != expected:
            raise ValueError(
                f"{frames.shape[2]} frames {'begin' if state is None else 'go on with'} a clip, expected {expected}: "
                "encode its first frame alone, then groups of four"
            )


class SpaceTimeDCTCodec(nn.Module, VideoCodec):
    """A training-free codec: the orthonormal DCT of 4 x p x p x 3 blocks, cut to the coefficients of largest prior.

    The first frame is coded alone, as a still group of four: its latent has the scale of every other latent
    of a still scene, and zero in all temporal channels. Decoding it averages the group, so it ignores those
    channels. With ``channels == 12*patch**2`` the codec is exactly invertible. There is no state and
    nothing to save: all numbers follow from ``patch`` and ``channels``. Like every codec it works where its input is.

    Args:
        patch: block edge in pixels.
        channels: coefficients kept per block, at most 12*patch².

    Attributes:
        channel_std: prior standard deviation by which each channel was divided, [C].
        channel_weight: loss weight proportional to it, mean 1, [C]: an error of whitened latents then
            counts about as much as it is seen in pixels.
        temporal_index: temporal frequency of each channel, 0..3, [C].
    """

    temporal_stride = TEMPORAL_STRIDE
    channel_std: Tensor
    channel_weight: Tensor
    temporal_index: Tensor
    _analysis: Tensor
    _synthesis: Tensor

    def __init__(self, patch: int = 16, channels: int = 96) -> None:
        super().__init__()
        block = 3 * TEMPORAL_STRIDE * patch * patch
        if not 1 <= channels <= block:
            raise ValueError(
                f"channels={channels} does not fit patch={patch}: expected 1..{block} (12*patch²); "
                "lower channels or raise patch"
            )
        self.latent_channels = channels
        self.spatial_stride = patch

        prior_cthw = _prior_std(patch)
        # Rounded, so that the choice never hangs on the last bit of a platform's arithmetic; ties keep their order.
        order = torch.argsort(prior_cthw.flatten().round(decimals=9), descending=True, stable=True)[:channels]
        colour, time, row, col = map(torch.from_numpy, np.unravel_index(order.numpy(), prior_cthw.shape))
        space_basis = _dct_matrix(patch)
        basis_CN = torch.einsum(
            "ka,kt,kh,kw->kathw",
            _colour_matrix()[colour],
            _dct_matrix(TEMPORAL_STRIDE)[time],
            space_basis[row],
            space_basis[col],
        ).reshape(channels, block)
        std = prior_cthw.flatten()[order]
        self.register_buffer("channel_std", std.float(), persistent=False)
        self.register_buffer("channel_weight", (std / std.mean()).float(), persistent=False)
        self.register_buffer("temporal_index", time, persistent=False)
        self.register_buffer("_analysis", (basis_CN / std[:, None]).T.float().contiguous(), persistent=False)
        self.register_buffer("_synthesis", (basis_CN * std[:, None]).float(), persistent=False)

    def encode(self, video: Tensor) -> Tensor:
        """Latents of a clip.

        Args:
            video: [B,3,T,H,W] in [-1,1], T = 1+4k.

        Returns:
            [B,C,1+k,H/p,W/p], about unit variance in the large channels.
        """
        self.latent_shape(*video.shape[2:])
        first = video[:, :, :1].expand(-1, -1, TEMPORAL_STRIDE, -1, -1)
        return self._transform(torch.cat([first, video[:, :, 1:]], dim=2))

    def encode_next(self, frames: Tensor, state: VideoState | None = None) -> tuple[Tensor, VideoState]:
        """One latent frame [B,C,1,h,w] and an empty state: groups of frames do not depend on one another."""
        self._check_group(frames, state)
        return self._transform(frames.expand(-1, -1, TEMPORAL_STRIDE, -1, -1)), ()

    def _transform(self, groups: Tensor) -> Tensor:
        """Latents [B,C,F,h,w] of whole groups of frames [B,3,4F,H,W]."""
        B, _, T, H, W = groups.shape
        self.to(groups.device)
        p = self.spatial_stride
        blocks = groups.to(self._analysis.dtype).reshape(
            B, 3, T // TEMPORAL_STRIDE, TEMPORAL_STRIDE, H // p, p, W // p, p
        )
        blocks_BFhwN = blocks.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
        return (blocks_BFhwN @ self._analysis).movedim(-1, 1)

    def decode(self, latents: Tensor) -> Tensor:
        """The clip [B,3,1+4k,H,W] of latents [B,C,1+k,h,w]; not clamped."""
        B, C, F, h, w = latents.shape
        if self.latent_channels != C:
            raise ValueError(
                f"latents have {C} channels, this codec (patch {self.spatial_stride}) keeps {self.latent_channels}: "
                "decode with the codec that encoded them"
            )
        self.to(latents.device)
        p = self.spatial_stride
        blocks_BFhwN = latents.movedim(1, -1).to(self._synthesis.dtype) @ self._synthesis
        blocks = blocks_BFhwN.reshape(B, F, h, w, 3, TEMPORAL_STRIDE, p, p)
        groups = blocks.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(B, 3, F, TEMPORAL_STRIDE, h * p, w * p)
        first = groups[:, :, 0].mean(dim=2, keepdim=True)
        return torch.cat([first, groups[:, :, 1:].flatten(2, 3)], dim=2)


def _dct_matrix(n: int) -> Tensor:
    """Orthonormal DCT-II, [frequency, sample], float64."""
    k = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi / n * k[:, None] * (k[None, :] + 0.5)) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def _colour_matrix() -> Tensor:
    """Orthonormal luma, red-blue and green-magenta axes over RGB, [component, rgb], float64."""
    axes = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    return axes / axes.norm(dim=1, keepdim=True)


def _prior_std(patch: int) -> Tensor:
    """Prior standard deviation of every coefficient of a block, [colour 3, time 4, row p, col p], float64."""
    f = torch.arange(patch, dtype=torch.float64) / (2 * patch)
    space_hw = torch.sqrt(_CORNER**2 + f[:, None] ** 2 + f[None, :] ** 2)
    time = torch.arange(TEMPORAL_STRIDE, dtype=torch.float64) / (2 * TEMPORAL_STRIDE)
    motion_thw = 1 / torch.sqrt(1 + (time[:, None, None] / (_SPEED * space_hw)) ** 2)
    gain_cthw = torch.tensor(_MOVING, dtype=torch.float64)[:, None, None, None] * motion_thw
    gain_cthw[:, 0] = 1
    std_cthw = torch.tensor(_AMPLITUDE, dtype=torch.float64)[:, None, None, None] * gain_cthw / space_hw
    mean_of_block = _BRIGHTNESS * math.sqrt(3 * TEMPORAL_STRIDE) * patch
    std_cthw[0, 0, 0, 0] = math.hypot(float(std_cthw[0, 0, 0, 0]), mean_of_block)
    return std_cthw
