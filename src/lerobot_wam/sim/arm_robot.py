"""An arm on the simulated tabletop as a LeRobot robot, for LeRobot's own commands.

A person lays the table anew between two episodes, and LeRobot says aloud when: "Recording episode 3". The robot's
table hears that (in the log, where LeRobot writes what it says) and lays scene 3.
"""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
from lerobot.robots.robot import Robot
from lerobot.utils.decorators import check_if_already_connected
from lerobot.utils.errors import DeviceNotConnectedError

from lerobot_wam.sim.arms import get_arm
from lerobot_wam.sim.config_arm_robot import WAMSimArmConfig

if TYPE_CHECKING:
    from lerobot_wam.sim.tabletop import Tabletop

_ROBOT_STREAM = 3
_ANNOUNCEMENT = re.compile(r"Recording episode (\d+)")
_STEPS_TIMED = 10
_robots: WeakValueDictionary[str | None, WAMSimArm] = WeakValueDictionary()


def find_robot(robot_id: str | None) -> WAMSimArm:
    """Return the simulated robot of this process that has this id; the newest where several have it.

    Raises:
        ValueError: there is none.
    """
    if robot_id not in _robots:
        raise ValueError(
            f"no wam_sim_arm robot with id {robot_id!r} in this process, found {list(_robots) or 'none'}; "
            "give --robot.type=wam_sim_arm, and --teleop.robot_id the value of --robot.id"
        )
    return _robots[robot_id]


class WAMSimArm(Robot):
    """One arm, its table and its cameras. Positions are joint angles in radians; actions are absolute joint targets.

    Every action takes 1/fps s of simulated time, whenever it comes, so nothing is lost on a slow machine.

    Attributes:
        scene: number of the present scene.
        scenes_begun: how often the table has been laid.
        announced: whether LeRobot announces its episodes.
    """

    config_class = WAMSimArmConfig
    name = "wam_sim_arm"

    def __init__(self, config: WAMSimArmConfig) -> None:
        self.arm = get_arm(config.arm)
        self.arm.locate_model()  # says what to install before LeRobot has begun a dataset
        self.name = self.arm.robot_type
        super().__init__(config)
        self.config, self.cameras = config, config.cameras
        self._world: Tabletop | None = None
        self.scene, self.scenes_begun, self.announced = config.scene, 0, False
        self._ear = _Ear(self)
        _robots[self.id] = self

    @property
    def action_features(self) -> dict[str, type]:
        """The joints, `NAME.pos`."""
        return {f"{joint}.pos": float for joint in self.arm.joint_names}

    @property
    def observation_features(self) -> dict[str, type | tuple[int, int, int]]:
        """The joints, and the cameras as (height, width, 3)."""
        size = self.config.image_size
        return {**self.action_features, **dict.fromkeys(self.cameras, (size, size, 3))}

    @property
    def is_connected(self) -> bool:
        """Whether there is a world."""
        return self._world is not None

    @property
    def world(self) -> Tabletop:
        """The simulated world.

        Raises:
            DeviceNotConnectedError: before `connect` and after `disconnect`.
        """
        if self._world is None:
            raise DeviceNotConnectedError(f"{self} is not connected; call connect() first")
        return self._world

    @property
    def is_calibrated(self) -> bool:
        """A simulated arm always is."""
        return True

    def calibrate(self) -> None:
        """Nothing to do."""

    def configure(self) -> None:
        """Nothing to do."""

    @check_if_already_connected
    def connect(self, calibrate: bool = True) -> None:
        """Build the world and lay the first scene."""
        from lerobot_wam.sim.tabletop import Tabletop

        self._world = Tabletop(self.config.arm, self.config.fps)
        self.lay_table(self.config.scene)
        self._steps, self._first_step = 0, 0.0
        logging.getLogger().addHandler(self._ear)

    def disconnect(self) -> None:
        """Drop the world and the process's renderers."""
        from lerobot_wam.sim.rendering import close_renderers

        logging.getLogger().removeHandler(self._ear)
        self._world = None
        close_renderers()

    def lay_table(self, scene: int) -> None:
        """Put the arm at home and the cubes where scene number `scene` has them."""
        from lerobot_wam.sim.tasks import place_cubes

        rng = np.random.default_rng([_ROBOT_STREAM, self.config.seed, scene])
        placement = place_cubes(rng)
        self.world.reset(placement.xy, placement.yaw)
        self.scene, self._tremble = scene, rng
        self.scenes_begun += 1

    def get_observation(self) -> dict[str, Any]:
        """Return the joint positions (rad) and the cameras' views, (S, S, 3) uint8."""
        world, size = self.world, self.config.image_size
        joints = dict(zip(self.action_features, world.joints.tolist(), strict=True))
        return {**joints, **{camera: world.image(size, camera) for camera in self.cameras}}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Hold joint targets (rad) for one control step; return them as clipped to the joints' limits.

        Raises:
            ValueError: other joints, or a target that is not finite.
        """
        if set(action) != set(self.action_features):
            expected = ", ".join(self.action_features)
            raise ValueError(f"action has {', '.join(action)}; arm {self.arm.name!r} expects {expected}")
        target = np.array([float(action[key]) for key in self.action_features])
        if not np.all(np.isfinite(target)):
            raise ValueError(f"action is {action}; expected finite joint targets in radians")
        self._watch_the_clock()
        world = self.world
        target = np.clip(target, world.scene.joint_low, world.scene.joint_high)
        world.step(target + self._tremble.normal(0.0, 1.0, len(target)) * self.config.noise)
        return dict(zip(self.action_features, target.tolist(), strict=True))

    def _watch_the_clock(self) -> None:
        """Say so where the first actions come faster than the simulated time that they take."""
        now = time.perf_counter()
        self._first_step = self._first_step or now
        if self._steps == _STEPS_TIMED and now - self._first_step < 0.75 * _STEPS_TIMED / self.config.fps:
            logging.warning(
                "actions come at %.0f a second and each takes 1/%d s of simulated time; give %d to --dataset.fps "
                "(lerobot-record) or --fps (lerobot-teleoperate, lerobot-rollout)",
                *(_STEPS_TIMED / (now - self._first_step), self.config.fps, self.config.fps),
            )
        self._steps += 1


class _Ear(logging.Handler):
    """Lays the scene of each episode that LeRobot announces."""

    def __init__(self, robot: WAMSimArm) -> None:
        super().__init__()
        self._robot = robot

    def emit(self, record: logging.LogRecord) -> None:
        announcement = _ANNOUNCEMENT.fullmatch(record.getMessage())
        if announcement is not None:
            self._robot.announced = True
            self._robot.lay_table(int(announcement[1]))
