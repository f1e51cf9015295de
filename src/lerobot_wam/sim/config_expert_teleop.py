"""The LeRobot configuration of the scripted operator: `--teleop.type=wam_sim_expert`. Loads no simulator."""

from __future__ import annotations

from dataclasses import dataclass

from lerobot.teleoperators.config import TeleoperatorConfig

MODES = ("tasks", "play")


@TeleoperatorConfig.register_subclass("wam_sim_expert")
@dataclass(kw_only=True)
class WAMSimExpertConfig(TeleoperatorConfig):
    """Options of the scripted operator of a `wam_sim_arm` robot in the same process.

    Attributes:
        mode: `tasks` does one task per scene, then rests; `play` pushes cubes about without a goal.
        tasks: what it does, as in `--env.task`: `single`, or names such as `left-red`; scene i is given task number i,
            and so on in circles. LeRobot writes one text into all episodes of a recording, so with
            `--dataset.single_task` this must name one task, and that text must be its instruction.
        robot_id: the `--robot.id` of its robot.
    """

    mode: str = "tasks"
    tasks: str = "single"
    robot_id: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}; expected one of {', '.join(MODES)}")
