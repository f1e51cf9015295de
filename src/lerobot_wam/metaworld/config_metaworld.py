"""The LeRobot configuration of Meta-World: `--env.type=wam_metaworld`. Loads no simulator."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from lerobot_wam.metaworld import options


@EnvConfig.register_subclass("wam_metaworld")
@dataclass
class WAMMetaWorldEnv(EnvConfig):
    """Options of Meta-World.

    Attributes:
        task: `all` (36 tasks), `seen` (26), `unseen` (the other 10), `mirror_seen` and `mirror_unseen` (the contrasts
            the other way round), or a comma-separated list such as `drawer-open-v3,drawer-close-v3`. Consecutive seeds
            cycle through them.
        fps: control steps, and frames, per second: 20.
        image_size: edge of the square images (pixels).
        episode_length: time limit (control steps), 125 at most.
        visualization_size: edge of the frames in rendered videos (pixels).
    """

    task: str | None = "all"
    fps: int = options.CONTROL_HZ
    image_size: int = 64
    episode_length: int = options.EPISODE_STEPS
    visualization_size: int = 256
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            ACTION: ACTION,
            "agent_pos": OBS_STATE,
            f"pixels/{options.CAMERA}": f"{OBS_IMAGES}.{options.CAMERA}",
        }
    )

    def __post_init__(self) -> None:
        if self.fps != options.CONTROL_HZ:
            raise ValueError(f"fps is {self.fps}; Meta-World runs here at {options.CONTROL_HZ}")
        self.features = {
            ACTION: PolicyFeature(type=FeatureType.ACTION, shape=(len(options.ACTION),)),
            "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=(len(options.STATE),)),
            f"pixels/{options.CAMERA}": PolicyFeature(
                type=FeatureType.VISUAL, shape=(self.image_size, self.image_size, 3)
            ),
        }

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Arguments of `lerobot_wam.metaworld.env.MetaWorldEnv`."""
        return {
            "task": self.task or "all",
            "image_size": self.image_size,
            "episode_length": self.episode_length,
            "visualization_size": self.visualization_size,
        }

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, gym.vector.VectorEnv]]:
        """Return `{"wam_metaworld": {0: a vector of n_envs environments}}`; ended episodes wait for the others.

        `use_async_envs` (LeRobot's default) is not followed: the environments share worlds and renderers, and a step
        takes about 10 ms, while every worker process would first import LeRobot.

        Raises:
            ModuleNotFoundError: Meta-World is not installed.
        """
        from lerobot.envs.utils import freeze_after_episode_end

        from lerobot_wam.metaworld.env import MetaWorldEnv

        makers = [freeze_after_episode_end(partial(MetaWorldEnv, **self.gym_kwargs)) for _ in range(n_envs)]
        mode = gym.vector.AutoresetMode.NEXT_STEP
        return {self.type: {0: gym.vector.SyncVectorEnv(makers, autoreset_mode=mode)}}
