"""What a new chunk is to agree with. Here and not beside the sampler, because a robot far from it says so too."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Commitment:
    """What a new chunk is to agree with.

    Attributes:
        actions: Absolute physical actions of the old chunk [n, A].
        weights: How much each of them counts [n]: 1 for those that are executed anyway, 0 for free.
        strength: Largest guidance weight.
    """

    actions: Tensor
    weights: Tensor
    strength: float = math.inf

    @staticmethod
    def of_lerobot(rest: Tensor, delay: int, steps: int, processor: Any) -> "Commitment | None":
        """Return what LeRobot's real-time chunking asks for; None where nothing is left.

        Args:
            rest: Absolute physical actions of the old chunk [n, A]. LeRobot pads a short rest with rows of zeros, which
                in physical units would be a pose, so they are cut off.
            delay: Control steps until the new chunk is in use.
            steps: Actions of a chunk.
            processor: LeRobot's `RTCProcessor`, for its schedule of weights and their bounds.
        """
        real = rest.any(dim=1).nonzero()
        if not len(real):
            return None
        actions = rest[: int(real.max()) + 1][:steps].cpu()
        horizon = min(processor.rtc_config.execution_horizon, len(actions))
        weights = processor.get_prefix_weights(delay, horizon, steps)[: len(actions)]
        return Commitment(actions, weights, processor.rtc_config.max_guidance_weight)

    def over(self, steps: int) -> Tensor:
        """Return the actions as a whole chunk [steps, A], the last one held: ranges may differ from step to step."""
        return torch.cat([self.actions, self.actions[-1:].expand(steps - len(self.actions), -1)])
