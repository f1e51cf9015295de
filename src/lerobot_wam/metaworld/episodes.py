"""Recorded Meta-World episodes, each a deterministic function of (recipe, index)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from lerobot_wam.metaworld.options import ACTION, CAMERA, CONTROL_HZ, EPISODE_STEPS, ROBOT_TYPE, STATE
from lerobot_wam.metaworld.tasks import select_tasks
from lerobot_wam.metaworld.world import Expert, World, give_back, take_world
from lerobot_wam.sim.episodes import Episode

_RECORDING_STREAM = 4
_MAX_ATTEMPTS = 50


@dataclass(frozen=True)
class Recipe:
    """Everything that an episode depends on besides its index."""

    tasks: str = "all"
    """What `select_tasks` takes; episodes cycle through them."""
    image_size: int = 64
    """Edge of the images (pixels)."""
    seed: int = 0
    """Recordings of different seeds share no scene, and none shares one with an evaluation."""
    noise: float = 0.1
    """Standard deviation of the noise on executed steps of the hand (1 is 4 cm); labels stay clean (DART)."""
    follow_through: int = 4
    """Steps for which the expert goes on after success."""

    file: ClassVar[str] = "wam_metaworld.json"
    fps: ClassVar[int] = CONTROL_HZ
    robot_type: ClassVar[str] = ROBOT_TYPE
    cameras: ClassVar[tuple[str, ...]] = (CAMERA,)
    state_names: ClassVar[tuple[str, ...]] = STATE
    action_names: ClassVar[tuple[str, ...]] = ACTION

    def __post_init__(self) -> None:
        if self.image_size < 16:
            raise ValueError(f"image_size is {self.image_size} pixels; expected 16 or more")
        if self.noise < 0 or self.follow_through < 0:
            raise ValueError(f"noise is {self.noise}, follow_through {self.follow_through}; expected 0 or more")
        select_tasks(self.tasks)

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON types."""
        return asdict(self)

    def make_episode(self, index: int) -> tuple[Episode, int]:
        """Simulate episode `index`; the same recipe and index give the same bytes on the same machine.

        Returns:
            the episode and the number of attempts it took (only successes are kept).

        Raises:
            RuntimeError: the expert missed 50 times in a row.
        """
        tasks = select_tasks(self.tasks)
        task = tasks[index % len(tasks)]
        world = take_world(task)
        try:
            for attempt in range(_MAX_ATTEMPTS):
                episode = self._try(world, (_RECORDING_STREAM, self.seed, index, attempt))
                if episode is not None:
                    return episode, attempt + 1
        finally:
            give_back(world)
        raise RuntimeError(f"the expert missed {task.name!r} {_MAX_ATTEMPTS} times at noise {self.noise}; lower it")

    def _try(self, world: World, key: tuple[int, ...]) -> Episode | None:
        rng = np.random.default_rng(key)
        world.reset(key)
        expert = Expert(world)
        images, states, actions = [], [], []

        def step() -> None:
            images.append(world.image(self.image_size))
            states.append(world.state)
            actions.append(expert.action().astype(np.float32))
            # The gripper's effort has no noise: a grip that trembles drops things that no policy would drop.
            world.step(actions[-1] + self.noise * np.append(rng.normal(size=3), 0.0))

        for _ in range(EPISODE_STEPS):
            step()
            if world.success:
                break
        else:
            return None
        for _ in range(self.follow_through):
            step()
        return Episode({CAMERA: np.stack(images)}, np.stack(states), np.stack(actions), world.task.instruction)
