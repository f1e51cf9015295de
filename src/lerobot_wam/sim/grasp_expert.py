"""The privileged expert that picks a cube up and puts it somewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lerobot_wam.sim.kinematics import InverseKinematics, funnel, toward
from lerobot_wam.sim.tabletop import COLOURS, Tabletop

if TYPE_CHECKING:
    from lerobot_wam.sim.tasks import Stage

_GRIP = np.array([0.0, 0.0, -0.004])
"""Where the tip holds a cube, from its centre (m)."""
_AROUND = 0.015
"""The fingers stand around a cube when the tip is this near to where it holds it, seen from above and in height (m)."""
_ON = (0.015, 0.005)
"""A cube this near to its goal, seen from above and in height, can be let go (m)."""
_WIDE, _LOOSE = 0.9, 0.12
"""Openings: enough to come down around a cube, and how much more than a cube's width lets it go."""
_STILL = 0.03
"""Closing fingers have met the cube when their opening changes less than this in a control step."""
_OVER, _ABOVE_GOAL = 0.115, 0.045
"""Height of the tip while the hand passes over cubes, also with a cube in it: above the table, and at least this much
above the goal (m)."""
_NEAR = 0.03
"""Within this distance, seen from above, it goes down without first rising (m)."""


class GraspExpert:
    """Its answer depends on the world's present state, and on whether the fingers are still moving."""

    def __init__(self, world: Tabletop, kinematics: InverseKinematics) -> None:
        self.world = world
        self._kinematics = kinematics
        self._opening = np.inf

    def action(self, stage: Stage, goal: np.ndarray) -> np.ndarray:
        """Return the joint targets for the next control step, (dof,) float64.

        Args:
            stage: what to do with which cube.
            goal: where the cube's centre shall rest, (3,), in metres.
        """
        world = self.world
        tip, joints, cube = world.tip, world.joints, world.cubes[stage.cube]
        opening, change = joints[-1], abs(joints[-1] - self._opening)
        self._opening = opening
        loose = 2 * world.cube_half / np.abs(world.scene.finger_range[1]).sum() + _LOOSE
        off, away = tip - (cube + _GRIP), goal - cube
        over = max(_OVER, goal[2] + _ABOVE_GOAL)
        low, up = tip[2] < over - 0.03, np.array([tip[0], tip[1], over + 0.01])
        yaw, step = world.cube_yaw[stage.cube], world.max_tip_step
        if np.linalg.norm(away[:2]) < _ON[0] and abs(away[2]) < _ON[1]:
            aim, opening = (up if opening > loose else tip), 1.0
        elif max(np.linalg.norm(off[:2]), abs(off[2])) < _AROUND:
            if change > _STILL or opening > loose:
                aim = cube + _GRIP
            elif low and np.linalg.norm(away[:2]) > _NEAR:
                aim = up
            else:
                aim = funnel(tip, tip + away, over)
                yaw = world.cube_yaw[COLOURS.index(stage.target)] if stage.verb == "stack" else 0.0
                step = world.push_tip_step if np.linalg.norm(away[:2]) < _NEAR else step
            opening = 0.0
        elif low and np.linalg.norm(off[:2]) > _NEAR:
            aim = up
        else:
            aim = funnel(tip, cube + _GRIP, over)
            aim[2] = max(aim[2], over if opening < _WIDE else 0.0)
            opening = 1.0
        return self._kinematics.solve(joints, toward(tip, aim, step), opening, yaw)
