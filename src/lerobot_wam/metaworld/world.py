"""One running task of Meta-World: its physics, scenes and judgement at our control rate, and images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from metaworld.policies import ENV_POLICY_MAP

from lerobot_wam.metaworld.model import make_environment
from lerobot_wam.metaworld.options import CAMERA, REPEATS
from lerobot_wam.metaworld.tasks import Task
from lerobot_wam.sim.rendering import render

_UNMEASURED = ("assembly-v3", "door-open-v3")
"""Tasks whose `obj_to_target` Meta-World leaves at 0."""
_ALMOST = 0.99


class World:
    """One task of Meta-World at 20 control steps a second, each of which holds its action for four of Meta-World's.

    Attributes:
        task: what has to be done.
        success: Meta-World's judgement after any of its steps, as in LeRobot's environment, kept from then on.
        progress: how much of the distance that matters to the task (object to goal, or hand to goal) is gone, at most
            since the start, in [0, 1]; 1 with success only.
        observation: Meta-World's own, (39,) float64, for its experts: objects and goal included.
    """

    def __init__(self, task: Task) -> None:
        """Build a world of `task`; it has no scene before `reset`."""
        self.task = task
        self._environment = make_environment(task)
        self._model, self._data = self._environment.model, self._environment.data

    def reset(self, key: Sequence[int]) -> None:
        """Draw a scene; the same numbers `key` give the same one."""
        self._environment.seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))
        self._environment.reset()
        self._data.qvel[:] = 0  # else the box of stick-push slides to its goal by itself
        mujoco.mj_forward(self._model, self._data)  # what was placed last is not yet where it belongs
        self.observation = self._environment._get_obs()
        _, info = self._environment.evaluate_state(self.observation, np.zeros(4))
        self.success, self.progress = False, 0.0
        self._start = self._distance(info)

    def step(self, action: np.ndarray) -> None:
        """Hold `action`, (4,), clipped to [-1, 1], for one control step."""
        for _ in range(REPEATS):
            self.observation, _, _, _, info = self._environment.step(np.clip(action, -1, 1))
            self.success = self.success or bool(info["success"])
        gone = 1 - self._distance(info) / self._start
        self.progress = 1.0 if self.success else max(self.progress, min(gone, _ALMOST))

    @property
    def state(self) -> np.ndarray:
        """What the arm feels, (4,) float32, see `options.STATE`."""
        return self.observation[:4].astype(np.float32)

    def image(self, size: int) -> np.ndarray:
        """Return the camera's view, (size, size, 3) uint8; the goal is in it where `task.marked`."""
        return render(self._model, self._data, CAMERA, size, self.task.name)

    def _distance(self, info: dict[str, float]) -> float:
        if self.task.name in _UNMEASURED:
            return float(np.linalg.norm(self.observation[4:7] - self._environment._target_pos))
        return float(info["obj_to_target"])


class Expert:
    """Meta-World's own scripted policy of a task; it sees where everything is."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._policy: Any = ENV_POLICY_MAP[world.task.name]()  # type: ignore[abstract]  # each is a whole one

    def action(self) -> np.ndarray:
        """Return the action for the world as it is, (4,) float64 in [-1, 1]."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that actions are clipped
            return np.clip(self._policy.get_action(self._world.observation), -1, 1)


_idle: dict[Task, list[World]] = {}


def take_world(task: Task) -> World:
    """Return a world of `task` that nobody uses; `give_back` it. Building one takes ten times as long as a reset."""
    return _idle[task].pop() if _idle.get(task) else World(task)


def give_back(world: World) -> None:
    """Let others use `world`."""
    _idle.setdefault(world.task, []).append(world)
