"""Surprise: how far what a robot sees is from what its policy dreamed, in units of what is usual for the two.

A dream says which latents will be observed. Where the window goes on they are encoded anyway, so the comparison costs
next to nothing, and it is made as soon as a latent frame's four pictures are there: the first time after half a chunk.

Shape legend: C latent channels, h w latent grid, N compared latent frames.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from lerobot_wam.runtime.state import Session

Reaction = Literal["ignore", "shorten", "replan", "hand_over"]
WORST_SHARE = 0.15
"""Share of the cells, those farthest from the dream, whose mean is the distance: what is odd is seldom everywhere."""


@dataclass(frozen=True)
class Calibration:
    """What a policy's dreams usually miss by, learned from recordings that it was not trained on.

    Attributes:
        scale: Root mean square error of each latent channel, for each latent frame of a chunk, [F][C].
        threshold: The quantile of the distance, for each latent frame of a chunk, [F].
        quantile: Of all compared latent frames, the share that is expected to lie within the threshold.
        latents: How many were compared, for each latent frame of a chunk, [F].
        source: The recordings, for people.
        settings: What a dream depends on besides the weights; other dreams cannot be judged by this.
    """

    scale: Sequence[Sequence[float]]
    threshold: Sequence[float]
    quantile: float
    latents: Sequence[int]
    source: str
    settings: Mapping[str, Any]

    @staticmethod
    def fit(
        errors: Sequence[Sequence[Tensor]], quantile: float, source: str, settings: Mapping[str, Any]
    ) -> "Calibration":
        """Calibrate on errors that were collected where nothing unexpected happened.

        The threshold is the conformal one: the ceil((N + 1) quantile)-th smallest distance, which a further one from
        the same source exceeds with a chance of at most 1 - quantile (Vovk et al. 2005).

        Args:
            errors: For each latent frame of a chunk, observed minus dreamed latents [C, h, w] of every one compared.
            quantile: Between 0 and 1.
            source: The recordings.
            settings: See above.

        Raises:
            ValueError: Too few latent frames for this quantile.
        """
        scales, thresholds = [], []
        for place, found in enumerate(errors):
            rank = math.ceil((len(found) + 1) * quantile)
            if rank > len(found):
                raise ValueError(
                    f"{len(found)} recorded chunks reach latent frame {place}, a quantile of {quantile:g} needs "
                    f"{math.ceil(quantile / (1 - quantile) - 1e-9)}: add held-out episodes or lower the quantile"
                )
            scale = torch.stack(list(found)).double().square().mean(dim=(0, 2, 3)).sqrt().clamp(min=1e-6)
            distances = sorted(distance(error, scale) for error in found)
            scales.append([float(f"{value:.5g}") for value in scale.tolist()])
            thresholds.append(float(f"{distances[rank - 1]:.6g}"))
        return Calibration(scales, thresholds, quantile, [len(found) for found in errors], source, settings)

    def surprise(self, place: int, error: Tensor) -> float:
        """How surprising an error [C, h, w] is at this latent frame of a chunk: 1 at the threshold."""
        return distance(error, torch.tensor(self.scale[place])) / self.threshold[place]


def distance(error: Tensor, scale: Tensor) -> float:
    """Distance of an observed latent frame from the dreamed one.

    Args:
        error: Observed minus dreamed, [C, h, w].
        scale: Usual error of each channel [C].

    Returns:
        The squared error over its usual size, averaged over the channels of a cell, and then over the `WORST_SHARE`
        of all cells in which it is largest.
    """
    cells = (error.cpu().double() / scale.double()[:, None, None]).square().mean(dim=0).flatten()
    return float(cells.topk(math.ceil(WORST_SHARE * len(cells))).values.mean())


class Watch(Protocol):
    """Is told of every latent frame of a chunk once it was observed, and may change what the session does next."""

    def __call__(self, session: Session, place: int, error: Tensor) -> None:
        """Take note of the error [C, h, w], observed minus dreamed, at latent frame `place` of the session's chunk."""
        ...


@dataclass(frozen=True)
class Recorder:
    """A watch that collects errors, for calibration.

    Attributes:
        errors: For each latent frame of a chunk, all that was noted.
    """

    errors: tuple[list[Tensor], ...]

    def __call__(self, session: Session, place: int, error: Tensor) -> None:
        """Keep the error."""
        self.errors[place].append(error.cpu())


@dataclass(frozen=True)
class Alarm:
    """A watch that tells a session how surprised it is, and lets it react above the threshold.

    Attributes:
        calibrations: Of each category's robot, by its index; none where it is missing.
        reaction: "ignore"; "shorten": execute half of the chunks until it is calm; "replan": drop the rest of the
            chunk and start a window on the newest frame, at once; "hand_over": likewise, but to stand still until a
            person has taken over, that is until a reset or another instruction.
        rests: Of each category's robot, the command of each action dimension that stands still [A]; nan for positions.
    """

    calibrations: Mapping[int, Calibration]
    reaction: Reaction
    rests: Mapping[int, np.ndarray]

    def __call__(self, session: Session, place: int, error: Tensor) -> None:
        """Note the session's surprise and react."""
        calibration = self.calibrations.get(session.category)
        if calibration is None:
            return
        session.surprise = calibration.surprise(place, error)
        surprised = not session.surprise <= 1  # nan is no calm
        session.cautious = surprised and self.reaction == "shorten"
        if not surprised:
            return
        if self.reaction in ("replan", "hand_over"):
            session.queue = []
            session.end_window()
        if self.reaction == "hand_over" and session.held is None and session.dream is not None:
            last = session.dream.actions[min(session.steps, len(session.dream.actions)) - 1]
            rest = torch.from_numpy(self.rests[session.category]).to(last)
            session.held = torch.where(rest.isnan(), last, rest)


def watch(sessions: Sequence[Session], watching: Watch) -> None:
    """Compare what was encoded of the sessions' frames since the last call with what was dreamed."""
    for session in sessions:
        dream, stream = session.dream, session.stream
        # A robot whose frames were lost on the way begins anew, and its frames are not those that were dreamed of.
        if dream is None or not session.frames or session.frames[0] is not dream.anchor_frame:
            continue
        for place in range(stream.compared, len(stream.latents) - 1):
            stream.compared += 1
            watching(session, place, stream.latents[1 + place][0, :, 0].float() - dream.expected[:, place].float())
