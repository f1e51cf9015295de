"""Joining a new chunk to the one that was executed while it was computed, and smoothing a chunk (spec §3.5).

A chunk that is planned on the observation of one control step and in use `delay` steps later begins in the past. What
is called the old chunk here begins at that same step, so row i of the old and of the new chunk are one moment. Three
ways to join them: `stitch` drops what has passed, or cross-fades the rest; a `Commitment` makes the sampler draw a
chunk that agrees with the old one to begin with (real-time chunking, Black et al. 2025, arXiv 2506.07339).

Shape legend: B batch, T actions of a chunk, n actions left of the old chunk, A action dimensions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lerobot_wam.commitment import Commitment
from lerobot_wam.diffusion.sampler import VelocityFunction
from lerobot_wam.diffusion.schedule import TRAIN_STEPS

# The paper's filter runs over the chunk at twice its rate.
_UPSAMPLING, _WINDOW, _ORDER = 2, 21, 3


def stitch(old: Tensor, new: Tensor, delay: int, blend: bool = False) -> Tensor:
    """Return the actions to execute once the new chunk is in use.

    Args:
        old: What was left of the old chunk when the plan began [n, A]; n may be 0.
        new: The new chunk [T, A].
        delay: Control steps since then. Where the old chunk was shorter, the arm has stood still for the rest of them,
            so no more than n steps of the new chunk have passed.
        blend: Fade linearly from the old to the new chunk where they overlap, instead of switching.

    Returns:
        [T - min(delay, n), A].
    """
    done = min(delay, len(old))
    joined = new.clone()
    overlap = min(len(old), len(new))
    if blend and overlap > done:
        share = torch.arange(1, overlap - done + 1) / (overlap - done + 1)
        joined[done:overlap] = torch.lerp(old[done:overlap], new[done:overlap], share[:, None].to(new))
    return joined[done:]


def soft_mask(delay: int, overlap: int) -> Tensor:
    """Weights [overlap] of real-time chunking: 1 for the first `delay` steps, decaying over the rest (its eq. 5)."""
    linear = (overlap - torch.arange(overlap)) / (overlap - min(delay, overlap) + 1)
    c = linear.clamp(max=1.0)
    return c * torch.expm1(c) / math.expm1(1)


@dataclass(frozen=True)
class Guidance:
    """Pulls the denoised actions of a batch towards targets, by the velocity of each denoising pass.

    The paper moves the velocity along the gradient of the weighted error of the clean estimate, which costs a
    backward pass of the network. Here the estimate's Jacobian is taken to be the identity, an approximation (LeRobot's
    processor computes the same: it starts to record after the pass). The move is then known to be too long where the
    paper's schedule exceeds 1 / sigma, the weight at which the estimate lands on its target; with the few steps of a
    shifted schedule it overshoots by up to ten times, so 1 / sigma it is.

    Attributes:
        target: Normalised actions [B, T, A].
        weight: Weight of each of them [B, T, A].
        strength: Largest guidance weight of each sample [B, 1, 1].
    """

    target: Tensor
    weight: Tensor
    strength: Tensor

    @staticmethod
    def towards(targets: Sequence[Tensor | None], commitments: Sequence[Commitment | None], like: Tensor) -> "Guidance":
        """Join what samples are to agree with: normalised targets [T, a] of each; rows of zero weight for None."""
        target, weight, strength = torch.zeros_like(like), torch.zeros_like(like), like.new_ones(len(like), 1, 1)
        for row, (normalised, commitment) in enumerate(zip(targets, commitments, strict=True)):
            if normalised is not None and commitment is not None:
                dimensions = normalised.shape[1]
                target[row, :, :dimensions] = normalised
                weight[row, : len(commitment.weights), :dimensions] = commitment.weights[:, None]
                strength[row] = commitment.strength
        return Guidance(target, weight, strength)

    def applied_to(self, velocity: VelocityFunction) -> VelocityFunction:
        """Return the network with guided action velocities."""

        def pulled(
            video: Tensor, action: Tensor, video_t: float, action_t: float, guided: bool
        ) -> tuple[Tensor, Tensor]:
            video_velocity, action_velocity = velocity(video, action, video_t, action_t, guided)
            return video_velocity, self.moved(action_velocity, action, action_t / TRAIN_STEPS)

        return pulled

    def moved(self, velocity: Tensor, action: Tensor, sigma: float) -> Tensor:
        """Return the guided velocity [B, T, A] (noise minus data) of `action` at noise level `sigma`."""
        error = self.weight * (self.target - (action - sigma * velocity))
        return velocity - self.strength.clamp(max=1 / sigma) * error


def smooth(actions: Tensor, fixed: Sequence[bool]) -> Tensor:
    """Smooth a chunk as the paper does: cubic upsampling, Savitzky-Golay filter, downsampling (spec §3.5).

    Args:
        actions: A chunk [T, A], T at least 3.
        fixed: Per dimension, whether it stays as it is: a gripper's opening is not a smooth signal.

    Returns:
        [T, A]. Where twice the chunk holds fewer samples than the filter's 21, the filter is as long as fits.
    """
    from scipy.interpolate import CubicSpline
    from scipy.signal import savgol_filter

    steps = torch.arange(len(actions), dtype=torch.float64)
    fine = torch.linspace(0, len(actions) - 1, _UPSAMPLING * (len(actions) - 1) + 1, dtype=torch.float64)
    upsampled = CubicSpline(steps, actions.double())(fine)
    filtered = savgol_filter(upsampled, min(_WINDOW, len(fine)), _ORDER, axis=0)
    smoothed = torch.from_numpy(filtered[::_UPSAMPLING]).to(actions)
    return torch.where(torch.tensor(list(fixed)), actions, smoothed)
