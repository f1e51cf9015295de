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
from lerobot_wam.sim.options import CAMERAS, CONTROL_HZ, check_world


@EnvConfig.register_subclass("wam_tabletop")
@dataclass
class WAMTabletopEnv(EnvConfig):
    """Options of the simulated tabletop.

    Attributes:
        task: `single` (12 tasks), of which `seen` (9) and `unseen` (3); `two_stage` (96), of which `two_stage_seen`
            and `two_stage_unseen`; `all`, or a comma-separated list such as `left-red,touch-blue` or
            `left-red+touch-blue` (two stages). With a gripper also `place` (9), `stack` (6), the same with `_seen` and
            `_unseen`, and `tower` (6). Consecutive seeds cycle through them.
        fps: control steps, and frames, per second: 10 or 20.
        arm: which arm: `viperx`, `so101`, `panda`, `ur5e`, or with a gripper `viperx_gripper` or `panda_gripper`.
        cameras: `front`, `side` or both.
        image_size: edge of the square images (pixels).
        episode_length: time limit (control steps); unset is 5 s, or 11 s with two-stage tasks, and twice that with
            tasks that take a gripper.
        instruction: evaluation control: announce the `true` task, a `wrong` one, or `none`. Success is always judged
            on the true task.
        blank_image: evaluation control: show black images.
        visualization_size: edge of the frames in rendered videos (pixels).
        looks: `plain`, `varied` (the looks to train in), `unseen` (those to be tested in) or the name of one look.
        disturbance: what happens in the midst of each episode: `none`; `push`, the named cube lies elsewhere; `camera`,
            the cameras are pushed aside; `lag`, actions arrive late.
    """

    task: str | None = "single"
    fps: int = CONTROL_HZ
    arm: str = "viperx"
    cameras: tuple[str, ...] = ("front",)
    image_size: int = 64
    episode_length: int | None = None
    instruction: str = "true"
    blank_image: bool = False
    visualization_size: int = 256
    looks: str = "plain"
    disturbance: str = "none"
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            ACTION: ACTION,
            "agent_pos": OBS_STATE,
            **{f"pixels/{camera}": f"{OBS_IMAGES}.{camera}" for camera in CAMERAS},
        }
    )

    def __post_init__(self) -> None:
        check_world(self.arm, self.cameras, self.fps, self.looks)
        dof = get_arm(self.arm).dof
        image = PolicyFeature(type=FeatureType.VISUAL, shape=(self.image_size, self.image_size, 3))
        self.features = {
            ACTION: PolicyFeature(type=FeatureType.ACTION, shape=(dof,)),
            "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=(dof,)),
            **{f"pixels/{camera}": image for camera in self.cameras},
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
            "cameras": self.cameras,
            "fps": self.fps,
            "looks": self.looks,
            "disturbance": self.disturbance,
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
