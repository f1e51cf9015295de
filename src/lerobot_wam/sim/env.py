"""The tabletop as a Gymnasium environment in the form LeRobot's evaluation expects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np

from lerobot_wam.sim.disturbances import Disturbance, DisturbanceKind
from lerobot_wam.sim.looks import draw_look
from lerobot_wam.sim.options import CONTROL_HZ, check_world
from lerobot_wam.sim.rendering import close_renderers
from lerobot_wam.sim.tabletop import Tabletop
from lerobot_wam.sim.tasks import Judge, Task, check_gripper, place_cubes, select_tasks

Instruction = Literal["true", "wrong", "none"]
_EVALUATION_STREAM = 0
_WRONG_STREAM = 1
_LOOK_STREAM = 6


def evaluation_rng(seed: int) -> np.random.Generator:
    """Return the generator that draws the scene of evaluation episode `seed`; recordings never use its stream."""
    return np.random.default_rng([_EVALUATION_STREAM, seed])


class TabletopEnv(gym.Env[dict[str, Any], np.ndarray]):
    """One tabletop world with a language task per episode.

    Observation: `{"pixels": {"front": (S, S, 3) uint8}, "agent_pos": (dof,) float32 joint positions in rad}`.
    Action: (dof,) absolute joint targets in rad, held for 1/fps s. Reward: gain in task progress, so an episode's
    return is its progress in [0, 1]. An episode terminates on success or as soon as it can no longer succeed (an
    unnamed cube moved), and truncates at the time limit. `info["is_success"]` is the strict judgement.

    `reset(seed=s)` plays task number `s mod len(tasks)` in a scene drawn from `s`, so consecutive seeds cycle evenly
    through the tasks. Without a seed, the next one is drawn from the environment's generator.

    The evaluation controls ask whether a policy listens and looks: `instruction="wrong"` announces another task (of
    the same selection where it has one) while success is judged on the real one, `"none"` announces an empty text,
    and `blank_image` shows black frames.

    Attributes:
        task: short name of the present task.
        task_description: the announced instruction.
        task_progress: strict progress of the present episode in [0, 1].
        disturbance: what happens in the episodes to come, as given to the constructor.
        upset: what happens in the present one.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(
        self,
        task: str = "single",
        arm: str = "viperx",
        image_size: int = 64,
        episode_length: int | None = None,
        instruction: Instruction = "true",
        blank_image: bool = False,
        visualization_size: int = 256,
        cameras: Sequence[str] = ("front",),
        fps: int = CONTROL_HZ,
        looks: str = "plain",
        disturbance: DisturbanceKind = "none",
        render_mode: str = "rgb_array",
    ) -> None:
        """Build the environment.

        Args:
            task: see `lerobot_wam.sim.tasks.select_tasks`.
            arm: a key of `lerobot_wam.sim.arms.ARMS`.
            image_size: edge of the observed images (pixels).
            episode_length: time limit (control steps); None is the longest `Task.time_limit` of the selection.
            instruction: what is announced: the `true` task, a `wrong` one or `none`.
            blank_image: show black images.
            visualization_size: edge of the images that `render` returns (pixels).
            cameras: keys of `lerobot_wam.sim.options.CAMERAS`.
            fps: control steps per second.
            looks: a key of `lerobot_wam.sim.looks.LOOKS`; each episode draws its look from it.
            disturbance: what happens in the midst of each episode: `none`, `push`, `camera` or `lag`; see
                `lerobot_wam.sim.disturbances.Disturbance`.
            render_mode: only `rgb_array`.

        Raises:
            ValueError: an option has a value outside the above.
            ModuleNotFoundError: the package that ships the arm is not installed.
        """
        if instruction not in get_args(Instruction):
            raise ValueError(f"instruction is {instruction!r}; expected one of {', '.join(get_args(Instruction))}")
        if disturbance not in get_args(DisturbanceKind):
            expected = ", ".join(get_args(DisturbanceKind))
            raise ValueError(f"disturbance is {disturbance!r}; expected one of {expected}")
        if render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode is {render_mode!r}; expected 'rgb_array'")
        if image_size < 8 or visualization_size < 8:
            raise ValueError(f"image_size is {image_size}, visualization_size {visualization_size}; expected >= 8")
        if episode_length is not None and episode_length < 1:
            raise ValueError(f"episode_length is {episode_length}; expected 1 or more, or none")
        check_world(arm, cameras, fps, looks)
        self.metadata = {**self.metadata, "render_fps": fps}
        self.tasks = select_tasks(task)
        check_gripper(self.tasks, arm)
        self.world = Tabletop(arm, fps)
        self.arm, self.cameras = self.world.arm, tuple(cameras)
        self.image_size, self.visualization_size = image_size, visualization_size
        self.instruction, self.blank_image = instruction, blank_image
        self.render_mode, self.looks, self.disturbance = render_mode, looks, disturbance
        time_limit = max(task.time_limit for task in self.tasks)
        self._max_episode_steps = episode_length or int(time_limit * self.world.pace)
        image = gym.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = gym.spaces.Dict(
            {
                "pixels": gym.spaces.Dict(dict.fromkeys(self.cameras, image)),
                "agent_pos": gym.spaces.Box(-np.inf, np.inf, (self.arm.dof,), np.float32),
            }
        )
        low, high = self.world.scene.joint_low, self.world.scene.joint_high
        self.action_space = gym.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
        self._begin(0)

    @property
    def task_progress(self) -> float:
        """Strict progress of the present episode in [0, 1]."""
        return self.judge.progress

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start episode `seed`; `options` are ignored."""
        super().reset(seed=seed)
        self._begin(int(self.np_random.integers(2**31)) if seed is None else seed)
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Hold the joint targets `action`, (dof,) in radians, for one control step.

        Raises:
            ValueError: the action has another shape or is not finite.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (self.arm.dof,):
            raise ValueError(f"action has shape {action.shape}; arm {self.arm.name!r} expects ({self.arm.dof},)")
        if not np.all(np.isfinite(action)):
            raise ValueError(f"action is {action}; expected finite joint targets in radians")
        before = self.judge.progress
        self.world.step(self.upset.arriving(action, self._steps))
        self.judge.update(self.world.cubes, self.world.tip)
        self._steps += 1
        terminated = self.judge.success or self.judge.failed
        if self._steps == self.upset.step and not terminated:
            self.upset.strike(self.world, self.judge)
        truncated = not terminated and self._steps >= self._max_episode_steps
        return self._observe(), self.judge.progress - before, terminated, truncated, self._info()

    def render(self) -> np.ndarray:
        """Return the front camera's view, (V, V, 3) uint8, never blanked."""
        return self.world.image(self.visualization_size)

    def close(self) -> None:
        """Free the process's renderers; they come back if another environment draws."""
        close_renderers()

    def _begin(self, seed: int) -> None:
        real = self.tasks[seed % len(self.tasks)]
        look = draw_look(self.looks, (_LOOK_STREAM, seed))
        placement = place_cubes(evaluation_rng(seed), real, look.cube_half)
        self.world.reset(placement.xy, placement.yaw, look, placement.plates)
        self.judge = Judge(real, self.world.cubes, self.world.tip, look.cube_half, self.world.plates)
        self.task = real.name
        self.task_description = self._announce(real, seed)
        self.upset = Disturbance(self.disturbance, seed)
        self._steps = 0

    def _announce(self, real: Task, seed: int) -> str:
        if self.instruction == "none":
            return ""
        if self.instruction == "true":
            return real.instruction
        kind = real.stages[0].verb if real.grasps else "single" if len(real.stages) == 1 else "two_stage"
        pool = [task for task in self.tasks if task != real and len(task.stages) == len(real.stages)]
        pool = pool or [task for task in select_tasks(kind) if task != real]
        return pool[np.random.default_rng([_WRONG_STREAM, seed]).integers(len(pool))].instruction

    def _observe(self) -> dict[str, Any]:
        images = {camera: self.world.image(self.image_size, camera) for camera in self.cameras}
        if self.blank_image:
            images = {camera: np.zeros_like(image) for camera, image in images.items()}
        return {"pixels": images, "agent_pos": self.world.joints.astype(np.float32)}

    def _info(self) -> dict[str, Any]:
        return {
            "is_success": self.judge.success,
            "task_progress": self.judge.progress,
            "disturbed": self.judge.failed,
        }
