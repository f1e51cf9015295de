"""The LeRobot configuration of the tabletop: `--env.type=wam_tabletop`. Loads no simulator."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from lerobot_wam.sim.arms import get_arm


@EnvConfig.register_subclass("wam_tabletop")
@dataclass
class WAMTabletopEnv(EnvConfig):
    """Options of the simulated tabletop.

    Attributes:
        task: `single` (12 tasks), `two_stage` (96), `all`, or a comma-separated list such as
            `left-red,touch-blue` or `left-red+touch-blue` (two stages). Consecutive seeds cycle through them.
        fps: control rate (Hz); the simulator runs at 10.
        arm: which arm: `viperx`, `so101`, `panda` or `ur5e`.
        image_size: edge of the square front image (pixels).
        episode_length: time limit (control steps); unset is 50, or 110 with two-stage tasks.
        instruction: evaluation control: announce the `true` task, a `wrong` one, or `none`. Success is always judged
            on the true task.
        blank_image: evaluation control: show black images.
        visualization_size: edge of the frames in rendered videos (pixels).
    """

    task: str | None = "single"
    fps: int = 10
    arm: str = "viperx"
    image_size: int = 64
    episode_length: int | None = None
    instruction: str = "true"
    blank_image: bool = False
    visualization_size: int = 256
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            ACTION: ACTION,
            "agent_pos": OBS_STATE,
            "pixels/front": f"{OBS_IMAGES}.front",
        }
    )

    def __post_init__(self) -> None:
        if self.fps != 10:
            raise ValueError(f"fps is {self.fps}; the tabletop runs at 10, leave --env.fps unset")
        dof = get_arm(self.arm).dof
        self.features = {
            ACTION: PolicyFeature(type=FeatureType.ACTION, shape=(dof,)),
            "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=(dof,)),
            "pixels/front": PolicyFeature(type=FeatureType.VISUAL, shape=(self.image_size, self.image_size, 3)),
        }

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Arguments of `lerobot_wam.sim.env.TabletopEnv`."""
        return {
            "task": self.task or "single",
            "arm": self.arm,
            "image_size": self.image_size,
            "episode_length": self.episode_length,
            "instruction": self.instruction,
            "blank_image": self.blank_image,
            "visualization_size": self.visualization_size,
        }

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, gym.vector.VectorEnv]]:
        """Return `{"wam_tabletop": {0: a vector of n_envs environments}}`; ended episodes wait for the others.

        `use_async_envs` (LeRobot's default) is not followed: the worlds share one compiled model and one renderer, and
        a step takes about 3 ms, while every worker process would first import LeRobot.
        """
        from lerobot.envs.utils import freeze_after_episode_end

        from lerobot_wam.sim.env import TabletopEnv

        makers = [freeze_after_episode_end(partial(TabletopEnv, **self.gym_kwargs)) for _ in range(n_envs)]
        mode = gym.vector.AutoresetMode.NEXT_STEP
        return {self.type: {0: gym.vector.SyncVectorEnv(makers, autoreset_mode=mode)}}
