"""How close imagined frames are to real ones: PSNR, PSNR of what moves, SSIM.

Shape legend: T frames, H W pixels, 3 colours; frames are uint8.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

MOVING_THRESHOLD = 8 / 255
"""A pixel moves where any of its colours differs from the conditioning frame by more than this share of full scale."""
_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5


@dataclass(frozen=True, eq=False)
class FrameScores:
    """Errors of T frames, kept per frame so that clips can be pooled.

    Attributes:
        error: Mean squared error of each frame, pixels in [0, 1], [T].
        moving_error: The same over moving pixels only; 0 where nothing moves, [T].
        moving_share: Share of the pixels that move, [T].
        ssim: Structural similarity, [T].
    """

    error: np.ndarray
    moving_error: np.ndarray
    moving_share: np.ndarray
    ssim: np.ndarray

    @property
    def psnr_per_frame(self) -> list[float]:
        """PSNR of each frame in dB; inf for identical frames."""
        return [psnr(error) for error in self.error]

    def summary(self) -> dict[str, float]:
        """Return `psnr` and `psnr_moving` (of the mean squared error over all frames, dB) and the mean `ssim`.

        `psnr_moving` is nan where nothing moves.
        """
        weight = self.moving_share.sum()
        moving = (self.moving_error * self.moving_share).sum() / weight if weight else np.nan
        return {"psnr": psnr(self.error.mean()), "psnr_moving": psnr(moving), "ssim": float(self.ssim.mean())}


def psnr(error: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error of pixels in [0, 1]; inf for 0, nan for nan."""
    return float("inf") if error == 0 else float(-10 * np.log10(error))


def score_frames(frames: np.ndarray, real: np.ndarray, conditioning: np.ndarray) -> FrameScores:
    """Compare frames with the real ones.

    Args:
        frames: What is judged, [T, H, W, 3] uint8.
        real: What happened, same shape.
        conditioning: The observed frame that each frame was predicted from; decides what moves. Same shape.

    Raises:
        ValueError: The shapes differ, or frames are smaller than the SSIM window.
    """
    if not frames.shape == real.shape == conditioning.shape:
        raise ValueError(
            f"frames {frames.shape}, real {real.shape} and conditioning {conditioning.shape} must have one shape"
        )
    a, b, start = (x.astype(np.float64) / 255 for x in (frames, real, conditioning))
    squared = ((a - b) ** 2).mean(axis=3)
    moving = np.abs(b - start).max(axis=3) > MOVING_THRESHOLD
    share = moving.mean(axis=(1, 2))
    moving_error = (squared * moving).mean(axis=(1, 2)) / np.where(share == 0, 1, share)
    return FrameScores(squared.mean(axis=(1, 2)), moving_error, share, ssim(frames, real))


def pool(scores: Sequence[FrameScores]) -> FrameScores:
    """Join the scores of several clips, so that `summary` weighs every frame alike."""
    return FrameScores(*(np.concatenate([vars(score)[name] for score in scores]) for name in vars(scores[0])))


def ssim(frames: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Structural similarity of each frame, [T] (Wang et al. 2004).

    Gaussian window of 11 x 11 pixels and sigma 1.5, K1 = 0.01, K2 = 0.03, population variances, whole windows only;
    the mean over positions and colours.

    Args:
        frames: [T, H, W, 3] uint8.
        real: The same shape.

    Raises:
        ValueError: Frames are smaller than the window.
    """
    if min(frames.shape[1:3]) < _SSIM_WINDOW:
        raise ValueError(f"frames are {frames.shape[1]}x{frames.shape[2]} pixels: SSIM needs {_SSIM_WINDOW} or more")
    offset = torch.arange(_SSIM_WINDOW, dtype=torch.float64) - _SSIM_WINDOW // 2
    kernel = torch.exp(-(offset**2) / (2 * _SSIM_SIGMA**2))
    kernel = kernel / kernel.sum()

    def blur(x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(functional.conv2d(x, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))

    a, b = (torch.from_numpy(x).double().movedim(3, 1).flatten(0, 1)[:, None] / 255 for x in (frames, real))
    mean_a, mean_b = blur(a), blur(b)
    variance_a, variance_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity /= (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    return similarity.mean(dim=(1, 2, 3)).unflatten(0, (-1, 3)).mean(dim=1).numpy()
