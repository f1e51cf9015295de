"""Privileged experts: they read cube positions from the simulator and answer with joint targets.

One piece of code drives every arm: waypoints for the tool tip, and damped least squares from there to joints.
"""

from __future__ import annotations

import logging

import numpy as np

from lerobot_wam.sim.grasp_expert import GraspExpert
from lerobot_wam.sim.kinematics import TRAVEL_HEIGHT, InverseKinematics, funnel, toward
from lerobot_wam.sim.tabletop import COLOURS, Tabletop
from lerobot_wam.sim.tasks import DIRECTIONS, PUSH_DISTANCE, WORK_AREA, Judge, Stage, Task

PUSH_HEIGHT = 0.022
"""Height of the tip while it pushes (m)."""
FOLLOW_THROUGH = 3
"""Steps of 0.1 s for which the expert goes on after success, so that nobody learns to stop at its very edge."""
HOLD = 4
"""Steps of 0.1 s at rest after that."""
_STANDOFF = 0.022
"""Gap between the cube's face and the tip before a push (m)."""
_LOW, _BESIDE = 0.05, 0.055
"""A tip below the first height and nearer to the cube than the second, but not behind it, must rise first (m)."""
_LEAN = 0.5
"""How far a push may lean from the named direction (per component of its unit vector)."""
_PATIENCE = 10
"""Control steps at `CONTROL_HZ` after which play gives up on a point."""


class TaskExpert:
    """Does a task's stages one after another; its answer depends on the world's present state and one phase."""

    def __init__(self, world: Tabletop) -> None:
        self.world = world
        self._kinematics = InverseKinematics(world.scene)
        self._grasp = GraspExpert(world, self._kinematics)
        self._stage_index = -1
        self._phase = "approach"

    def action(self, judge: Judge) -> np.ndarray:
        """Return the joint targets for the next control step, (dof,) float64, in radians.

        Args:
            judge: the referee of this episode, up to date with the world.
        """
        world = self.world
        tip, cubes = world.tip, world.cubes
        if judge.stage_index != self._stage_index and judge.stage is not None:
            self._phase = "approach" if self._stage_index < 0 else "retreat"
            self._stage_index = judge.stage_index
        stage = judge.stage or judge.task.stages[-1]  # goes on where it has succeeded
        if stage.target is not None:
            return self._grasp.action(stage, judge.goal(stage, cubes))
        if self._phase == "retreat" and tip[2] > TRAVEL_HEIGHT - 0.02:
            self._phase = "approach"
        if self._phase == "retreat":
            goal, step = np.array([tip[0], tip[1], TRAVEL_HEIGHT + 0.02]), world.max_tip_step
        elif stage.verb == "touch":
            goal, step = self._touch(tip, cubes[stage.cube])
        else:
            goal, step = self._push(stage, tip, cubes, judge.anchor)
        return self._kinematics.solve(world.joints, toward(tip, goal, step))

    def _touch(self, tip: np.ndarray, cube: np.ndarray) -> tuple[np.ndarray, float]:
        half = self.world.cube_half
        goal = np.array([cube[0], cube[1], cube[2] + half + 0.006])
        step = self.world.max_tip_step if tip[2] > cube[2] + 3 * half else self.world.push_tip_step
        return funnel(tip, goal), step

    def _push(self, stage: Stage, tip: np.ndarray, cubes: np.ndarray, anchor: np.ndarray) -> tuple[np.ndarray, float]:
        world, half = self.world, self.world.cube_half
        cube = cubes[stage.cube][:2]
        direction = DIRECTIONS[stage.verb]
        # Push toward a point a little past success, which also brings a strayed cube back onto its line.
        aim = anchor[stage.cube][:2] + direction * (PUSH_DISTANCE + 0.03) - cube
        direction = direction + np.clip(aim / np.linalg.norm(aim) - direction, -_LEAN, _LEAN)
        direction /= np.linalg.norm(direction)
        across = np.array([-direction[1], direction[0]])
        offset = tip[:2] - cube
        slipped = abs(offset @ across) > half or offset @ direction > -half / 2
        beside = tip[2] < _LOW and offset @ direction > -half / 2 and np.linalg.norm(offset) < _BESIDE
        if (self._phase == "push" and slipped) or (self._phase == "approach" and beside):
            self._phase = "lift"
        if self._phase == "lift":
            if tip[2] < TRAVEL_HEIGHT - 0.02:
                return np.array([tip[0], tip[1], TRAVEL_HEIGHT + 0.02]), world.max_tip_step
            self._phase = "approach"
        behind = cube - direction * (half + _STANDOFF)
        start = np.array([*behind, PUSH_HEIGHT])
        if self._phase == "approach":
            if np.linalg.norm((tip - start)[:2]) > 0.015 or tip[2] > PUSH_HEIGHT + 0.02:
                return funnel(tip, start), world.max_tip_step
            self._phase = "push"
        goal = cube + direction * (offset @ direction + 1.5 * world.push_tip_step)
        return np.array([*goal, PUSH_HEIGHT]), world.push_tip_step


class Attempt:
    """One task done once in the present scene: the expert, its follow-through, and rest from then on."""

    def __init__(self, world: Tabletop, task: Task) -> None:
        self.world = world
        self.judge = Judge(task, world.cubes, world.tip, world.cube_half, world.plates)
        self._expert = TaskExpert(world)
        self._steps_after = 0
        self._rest: np.ndarray | None = None

    @property
    def over(self) -> bool:
        """Whether it has been done, or has failed, and the arm has rested a while."""
        return self._steps_after > (FOLLOW_THROUGH + HOLD) * self.world.pace

    def action(self) -> np.ndarray:
        """Return the joint targets for the next control step, (dof,) float64, in radians."""
        self.judge.update(self.world.cubes, self.world.tip)
        self._steps_after += self.judge.success or self.judge.failed
        if not self.judge.failed and self._steps_after <= FOLLOW_THROUGH * self.world.pace:
            return self._expert.action(self.judge)
        if self._rest is None:
            self._rest = self.world.joints
            if self.judge.failed:
                logging.warning("the expert missed %r; record this episode again", self.judge.task.instruction)
        return self._rest


class PlayExpert:
    """Goal-free behaviour rich in contact: random pushes at random cubes between random points in the air."""

    over = False
    """Play has no end."""

    def __init__(self, world: Tabletop, rng: np.random.Generator) -> None:
        self.world = world
        self.rng = rng
        self._kinematics = InverseKinematics(world.scene)
        self._waypoints: list[tuple[np.ndarray, bool]] = []
        self._patience = 0.0

    def action(self) -> np.ndarray:
        """Return the joint targets for the next control step, (dof,) float64, in radians."""
        world, tip = self.world, self.world.tip
        if self._waypoints and (np.linalg.norm(tip - self._waypoints[0][0]) < 0.02 or self._patience <= 0):
            self._waypoints.pop(0)
            self._patience = _PATIENCE * world.pace
        if not self._waypoints:
            self._waypoints = self._draw(tip)
            self._patience = _PATIENCE * world.pace
        self._patience -= 1
        goal, straight = self._waypoints[0]
        aim = goal if straight else funnel(tip, goal)
        step = world.push_tip_step if straight else world.max_tip_step
        return self._kinematics.solve(world.joints, toward(tip, aim, step))

    def _draw(self, tip: np.ndarray) -> list[tuple[np.ndarray, bool]]:
        """Return the next waypoints: a push at a cube (4 of 5 times) or a point above the table."""
        rng, low, high = self.rng, *np.array(WORK_AREA).T
        margin = 0.04
        if rng.random() < 0.2:
            xy = rng.uniform(low - margin, high + margin)
            return [(np.array([*xy, rng.uniform(PUSH_HEIGHT + 0.02, 0.16)]), False)]
        cube = self.world.cubes[rng.integers(len(COLOURS))][:2]
        # Rather back toward the middle, so that cubes stay on the work area.
        inward = (low + high) / 2 - cube
        angle = np.arctan2(inward[1], inward[0]) + rng.normal(0, 1.2)
        direction = np.array([np.cos(angle), np.sin(angle)])
        start = cube - direction * (self.world.cube_half + 0.03)
        end = cube + direction * rng.uniform(-0.01, 0.06)
        clip = (low - 0.09, high + 0.09)
        start, end = np.clip(start, *clip), np.clip(end, *clip)
        up = np.array([*end, TRAVEL_HEIGHT])
        return [
            (np.array([*start, PUSH_HEIGHT]), False),
            (np.array([*end, PUSH_HEIGHT]), True),
            (up, True),
        ]
