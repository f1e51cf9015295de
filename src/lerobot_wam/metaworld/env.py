"""Meta-World as a Gymnasium environment in the form LeRobot's evaluation expects."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from lerobot_wam.metaworld.options import ACTION, CAMERA, CONTROL_HZ, EPISODE_STEPS, MAX_STEPS, STATE
from lerobot_wam.metaworld.tasks import select_tasks
from lerobot_wam.metaworld.world import give_back, take_world
from lerobot_wam.sim.rendering import close_renderers

_EVALUATION_STREAM = 3


class MetaWorldEnv(gym.Env[dict[str, Any], np.ndarray]):
    """One Meta-World task per episode.

    Observation: `{"pixels": {"corner": (S, S, 3) uint8}, "agent_pos": (4,) float32}`, the latter as in
    `lerobot_wam.metaworld.options.STATE`. Action: (4,) in [-1, 1], as in `ACTION` there, held for 1/20 s. Reward: gain
    in task progress, so an episode's return is its progress in [0, 1]. An episode terminates on success, which is
    Meta-World's own, and truncates at the time limit.

    `reset(seed=s)` plays task number `s mod len(tasks)` in a scene drawn from `s`, so consecutive seeds cycle evenly
    through the tasks. Without a seed, the next one is drawn from the environment's generator.

    Attributes:
        task: name of the present task.
        task_description: its instruction.
        task_progress: progress of the present episode in [0, 1].
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012

    def __init__(
        self,
        task: str = "all",
        image_size: int = 64,
        episode_length: int = EPISODE_STEPS,
        visualization_size: int = 256,
        render_mode: str = "rgb_array",
    ) -> None:
        """Build the environment.

        Args:
            task: see `lerobot_wam.metaworld.tasks.select_tasks`.
            image_size: edge of the observed images (pixels).
            episode_length: time limit (control steps), 125 at most.
            visualization_size: edge of the images that `render` returns (pixels).
            render_mode: only `rgb_array`.

        Raises:
            ValueError: an option has a value outside the above.
        """
        if render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode is {render_mode!r}; expected 'rgb_array'")
        if image_size < 8 or visualization_size < 8:
            raise ValueError(f"image_size is {image_size}, visualization_size {visualization_size}; expected >= 8")
        if not 1 <= episode_length <= MAX_STEPS:
            raise ValueError(f"episode_length is {episode_length}; expected 1 to {MAX_STEPS} control steps")
        self.tasks = select_tasks(task)
        self.world = take_world(self.tasks[0])
        self.image_size, self.visualization_size = image_size, visualization_size
        self.render_mode, self._max_episode_steps = render_mode, episode_length
        image = gym.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = gym.spaces.Dict(
            {
                "pixels": gym.spaces.Dict({CAMERA: image}),
                "agent_pos": gym.spaces.Box(-np.inf, np.inf, (len(STATE),), np.float32),
            }
        )
        self.action_space = gym.spaces.Box(-1, 1, (len(ACTION),), np.float32)
        self._begin(0)

    @property
    def task_progress(self) -> float:
        """Progress of the present episode in [0, 1]."""
        return self.world.progress

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start episode `seed`; `options` are ignored."""
        super().reset(seed=seed)
        self._begin(int(self.np_random.integers(2**31)) if seed is None else seed)
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Hold `action`, (4,), clipped to [-1, 1], for one control step.

        Raises:
            ValueError: the action has another shape or is not finite.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (len(ACTION),):
            raise ValueError(f"action has shape {action.shape}; expected ({len(ACTION)},): {', '.join(ACTION)}")
        if not np.all(np.isfinite(action)):
            raise ValueError(f"action is {action}; expected finite numbers")
        before = self.world.progress
        self.world.step(action)
        self._steps += 1
        truncated = not self.world.success and self._steps >= self._max_episode_steps
        return self._observe(), self.world.progress - before, self.world.success, truncated, self._info()

    def render(self) -> np.ndarray:
        """Return the camera's view, (V, V, 3) uint8."""
        return self.world.image(self.visualization_size)

    def close(self) -> None:
        """Free the process's renderers; they come back if another environment draws."""
        close_renderers()

    def _begin(self, seed: int) -> None:
        task = self.tasks[seed % len(self.tasks)]
        if task != self.world.task:
            give_back(self.world)
            self.world = take_world(task)
        self.world.reset([_EVALUATION_STREAM, seed])
        self.task, self.task_description = task.name, task.instruction
        self._steps = 0

    def _observe(self) -> dict[str, Any]:
        return {"pixels": {CAMERA: self.world.image(self.image_size)}, "agent_pos": self.world.state}

    def _info(self) -> dict[str, Any]:
        return {"is_success": self.world.success, "task_progress": self.world.progress}
