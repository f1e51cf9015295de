"""The LeRobot configuration of the simulated arm: `--robot.type=wam_sim_arm`. Loads no simulator."""

from __future__ import annotations

from dataclasses import dataclass

from lerobot.robots.config import RobotConfig

from lerobot_wam.sim.options import CONTROL_HZ, check_world


@RobotConfig.register_subclass("wam_sim_arm")
@dataclass(kw_only=True)
class WAMSimArmConfig(RobotConfig):
    """Options of an arm on the simulated tabletop.

    Attributes:
        arm: `viperx`, `so101`, `panda`, `ur5e`, `viperx_gripper` or `panda_gripper`. The robot type in datasets is
            `wam_sim_` and this.
        cameras: `front`, `side` or both.
        image_size: edge of the square images (pixels).
        fps: control steps per second, 10 or 20; give the same number to `--dataset.fps` or `--fps`.
        seed: robots of different seeds share no scene.
        scene: number of the scene at the start. An episode that LeRobot announces has the scene of its own number.
        noise: standard deviation of a tremble added to executed joint targets (rad). Recorded actions do not show it.
    """

    arm: str = "viperx"
    cameras: tuple[str, ...] = ("front",)
    image_size: int = 64
    fps: int = CONTROL_HZ
    seed: int = 0
    scene: int = 0
    noise: float = 0.0

    def __post_init__(self) -> None:
        # LeRobot's own check is for cameras that are devices.
        check_world(self.arm, self.cameras, self.fps)
