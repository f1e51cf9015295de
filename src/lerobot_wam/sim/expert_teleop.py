"""The scripted operator of a simulated arm as a LeRobot teleoperator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from lerobot.configs import parser
from lerobot.teleoperators.teleoperator import Teleoperator
from lerobot.utils.decorators import check_if_already_connected
from lerobot.utils.errors import DeviceNotConnectedError

from lerobot_wam.sim.arm_robot import WAMSimArm, find_robot
from lerobot_wam.sim.config_expert_teleop import WAMSimExpertConfig

if TYPE_CHECKING:
    from lerobot_wam.sim.experts import Attempt, PlayExpert

_PLAY_STREAM = 4


class WAMSimExpert(Teleoperator):
    """Reads the world of a `wam_sim_arm` robot in the same process and answers with joint targets in radians.

    It begins anew whenever the robot's table is laid. Where LeRobot announces no episodes (`lerobot-teleoperate`), it
    has the table laid itself as soon as a task is over.
    """

    config_class = WAMSimExpertConfig
    name = "wam_sim_expert"

    def __init__(self, config: WAMSimExpertConfig) -> None:
        from lerobot_wam.sim.tasks import select_tasks

        super().__init__(config)
        self.config, self.tasks = config, select_tasks(config.tasks)
        if grasps := [task.name for task in self.tasks if task.grasps]:
            raise ValueError(
                f"the operator pushes and touches, found {grasps[0]!r} in --teleop.tasks; record it with "
                f"lerobot-wam record --arm=viperx_gripper --tasks={grasps[0]}"
            )
        self._robot: WAMSimArm | None = None
        self._script: Attempt | PlayExpert | None = None
        self._scenes_seen = 0
        written = parser.parse_arg("dataset.single_task")
        instructions = [task.instruction for task in self.tasks]
        if config.mode == "tasks" and written is not None and instructions != [written]:
            raise ValueError(
                f"--dataset.single_task is {written!r}, but --teleop.tasks={config.tasks} does {instructions[0]!r}"
                f"{f' and {len(instructions) - 1} others' if len(instructions) > 1 else ''}; make both name one task, "
                "such as --teleop.tasks=left-red and --dataset.single_task='push the red cube to the left'"
            )

    @property
    def action_features(self) -> dict[str, type]:
        """The robot's joints."""
        return find_robot(self.config.robot_id).action_features

    @property
    def feedback_features(self) -> dict[str, type]:
        """None: it feels nothing."""
        return {}

    @property
    def is_connected(self) -> bool:
        """Whether it has found its robot."""
        return self._robot is not None

    @property
    def robot(self) -> WAMSimArm:
        """Its robot.

        Raises:
            DeviceNotConnectedError: before `connect` and after `disconnect`.
        """
        if self._robot is None:
            raise DeviceNotConnectedError(f"{self} is not connected; call connect() first")
        return self._robot

    @property
    def is_calibrated(self) -> bool:
        """A script always is."""
        return True

    def calibrate(self) -> None:
        """Nothing to do."""

    def configure(self) -> None:
        """Nothing to do."""

    def send_feedback(self, feedback: dict[str, Any]) -> None:
        """Nothing to feel."""

    @check_if_already_connected
    def connect(self, calibrate: bool = True) -> None:
        """Find the robot.

        Raises:
            ValueError: there is none with this id in the process.
        """
        self._robot = find_robot(self.config.robot_id)

    def disconnect(self) -> None:
        """Let go of the robot."""
        self._robot = self._script = None

    def get_action(self) -> dict[str, Any]:
        """Return the joint targets (rad) for the next control step."""
        robot = self.robot
        if self._script is not None and self._script.over and not robot.announced:
            robot.lay_table(robot.scene + 1)
        if self._script is None or robot.scenes_begun != self._scenes_seen:
            self._scenes_seen, self._script = robot.scenes_begun, self._begin(robot)
        scene = robot.world.scene
        target = np.clip(self._script.action(), scene.joint_low, scene.joint_high)
        return dict(zip(robot.action_features, target.tolist(), strict=True))

    def _begin(self, robot: WAMSimArm) -> Attempt | PlayExpert:
        from lerobot_wam.sim.experts import Attempt, PlayExpert

        if self.config.mode == "play":
            return PlayExpert(robot.world, np.random.default_rng([_PLAY_STREAM, robot.config.seed, robot.scene]))
        return Attempt(robot.world, self.tasks[robot.scene % len(self.tasks)])
