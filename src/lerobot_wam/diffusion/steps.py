"""Which solver steps are computed and which reuse the last velocities (spec §3.2; "DiT cache" in the official code).

A skipped step repeats the last guided video velocity and the last action velocity, or continues the line through the
last two; both solvers advance all the same.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

STATIC_STEPS = {
    "8": frozenset({0, 1, 2, 6, 10, 13, 14, 15}),
    "7": frozenset({0, 1, 2, 6, 10, 14, 15}),
    "6": frozenset({0, 1, 5, 10, 14, 15}),
    "5": frozenset({0, 1, 2, 7, 12}),
}
"""The official masks over 16 steps."""
STATIC_TOTAL = 16

# Steps that are skipped when two computed velocities in a row are this similar; the larger threshold wins.
_SKIPS = ((0.93, 2), (0.95, 4))


class ComputedSteps(Protocol):
    """Decides per sample, so that a batch skips what its samples would skip alone."""

    def due(self, index: int) -> Tensor:
        """Return which samples compute step `index`, bool [B]; called once per step, in order."""
        ...

    def note(self, velocity: Tensor, due_B: Tensor) -> None:
        """Take note of the velocities [B, ...] that were computed for the samples that were due."""
        ...


class ListedSteps:
    """Computes the listed steps for every sample."""

    def __init__(self, steps: frozenset[int] | range, batch: int) -> None:
        self._steps, self._batch = steps, batch

    def due(self, index: int) -> Tensor:
        """All samples or none."""
        return torch.full((self._batch,), index in self._steps)

    def note(self, velocity: Tensor, due_B: Tensor) -> None:
        """The list is fixed."""


class SimilarSteps:
    """Skips while the velocity hardly turns: by the cosine of a sample's last two computed velocities.

    Above 0.95 the next 4 steps are skipped, above 0.93 the next 2; the step after them is always computed.
    """

    def __init__(self, batch: int) -> None:
        self._countdown_B = torch.zeros(batch, dtype=torch.int64)
        self._last: Tensor | None = None
        self._previous: Tensor | None = None

    def due(self, index: int) -> Tensor:
        """The first two steps; then as the class says."""
        if self._last is None or self._previous is None:
            return torch.ones_like(self._countdown_B, dtype=torch.bool)
        similarity_B = F.cosine_similarity(self._last.flatten(1), self._previous.flatten(1), dim=1).cpu()
        skips_B = torch.zeros_like(self._countdown_B)
        for threshold, skips in _SKIPS:
            skips_B[similarity_B > threshold] = skips
        free_B = self._countdown_B == 0
        due_B = torch.where(free_B, skips_B == 0, self._countdown_B == 1)
        self._countdown_B = torch.where(free_B, skips_B, self._countdown_B - 1)
        return due_B

    def note(self, velocity: Tensor, due_B: Tensor) -> None:
        """Remember the two newest velocities of each sample; one that was not due holds its last one still."""
        if self._last is not None:
            due = due_B.view(-1, *[1] * (velocity.ndim - 1))
            self._previous = self._last if self._previous is None else torch.where(due, self._last, self._previous)
        self._last = velocity.float()


def computed_steps(name: str, steps: int, batch: int) -> ComputedSteps:
    """Build the choice that `SamplerConfig.computed_steps` names."""
    if name == "dynamic":
        return SimilarSteps(batch)
    return ListedSteps(range(steps) if name == "all" else STATIC_STEPS[name], batch)


class HeldVelocity:
    """The velocity of one modality at every step: computed at the steps that are due, held at the others.

    Per sample, like the choice of steps: v(sigma) = v1 + slope (sigma - sigma1) after a computation of v1 at sigma1.
    The slope is 0, or with `extrapolate` that of the line through the last two computed velocities.

    Attributes:
        computed: What was computed last for each sample [B, ...].
    """

    def __init__(self, extrapolate: bool) -> None:
        self.computed: Tensor | None = None
        self._extrapolate = extrapolate
        self._sigma: Tensor | None = None
        self._slope: Tensor | None = None

    def note(self, velocity: Tensor, sigma: float, due_B: Tensor) -> Tensor:
        """Take what was computed at noise level `sigma` for the samples that were due; returns `computed`."""
        due = due_B.view(-1, *[1] * (velocity.ndim - 1))
        if self.computed is None or self._sigma is None:  # every sample computes the first step
            self.computed, self._sigma = velocity, torch.full_like(due, sigma, dtype=velocity.dtype)
            self._slope = torch.zeros_like(velocity) if self._extrapolate else None
            return velocity
        if self._slope is not None:
            self._slope = torch.where(due, (velocity - self.computed) / (sigma - self._sigma), self._slope)
        self.computed = torch.where(due, velocity, self.computed)
        self._sigma = torch.where(due, sigma, self._sigma)
        return self.computed

    def at(self, sigma: float) -> Tensor:
        """The velocities [B, ...] to step with at noise level `sigma`."""
        assert self.computed is not None
        assert self._sigma is not None
        return self.computed if self._slope is None else self.computed + self._slope * (sigma - self._sigma)
