"""Robots of any body as rows of one batch: physical numbers in, padded normalised ones out, and back (spec §2.4)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lerobot_wam.embodiments.action_space import ActionSpace
from lerobot_wam.model.config import ModelConfig
from lerobot_wam.runtime.state import Observation, Session


class Rows:
    """What the network is told of the robots that a chunk is computed for, B of them.

    Args:
        spaces: Per category, the embodiment's normalisation.
        sessions: The robots' sessions.
        observations: The newest observation of each, which its chunk is anchored at.
        config: The network's widths.
        device: Where the network is.
        padding: What the action dimensions hold that a robot does not have, as a factor of the noise.

    Attributes:
        category: Index of each robot's embodiment [B].
        state: Padded normalised states [B, states_per_chunk, state_dim].
        dims: 1 for the action dimensions that a robot has, `padding` for the others, [B, 1, action_dim].
        has_robot: False for video without a robot [B]; None where all have one.
    """

    def __init__(
        self,
        spaces: Sequence[ActionSpace],
        sessions: Sequence[Session],
        observations: Sequence[Observation],
        config: ModelConfig,
        device: torch.device,
        padding: float,
    ) -> None:
        batch = len(sessions)
        self.spaces = [spaces[session.category] for session in sessions]
        self._anchors = [observation.state.float().cpu() for observation in observations]
        self.category = torch.tensor([session.category for session in sessions], device=device)
        self.state = torch.zeros(batch, config.states_per_chunk, config.state_dim, device=device)
        self.dims = torch.full((batch, 1, config.action_dim), padding, device=device)
        for row, (space, observation) in enumerate(zip(self.spaces, observations, strict=True)):
            self.state[row, :, : len(space.spec.state)] = space.encode_state(observation.state.float()).to(device)
            self.dims[row, :, : len(space.spec.action)] = 1.0
        robots = [bool(space.spec.action) for space in self.spaces]
        self.has_robot = None if all(robots) else torch.tensor(robots, device=device)

    def encode(self, row: int, action: Tensor) -> Tensor:
        """Normalise absolute physical actions [T, A] of one robot."""
        return self.spaces[row].encode(action.float().cpu()[None, None], self._anchors[row][None, None])[0, 0]

    def decode(self, row: int, action: Tensor) -> Tensor:
        """Return the absolute physical actions [T, A] of one robot's padded normalised ones [T, action_dim]."""
        space = self.spaces[row]
        normalised = action[:, : len(space.spec.action)].float().cpu()
        return space.decode(normalised[None, None], self._anchors[row][None, None])[0, 0]
