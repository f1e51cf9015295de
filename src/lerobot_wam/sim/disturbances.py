"""What may happen in the middle of an episode that no policy can foresee."""

from __future__ import annotations

from collections import deque
from typing import Literal

import mujoco
import numpy as np

from lerobot_wam.sim.tabletop import Tabletop
from lerobot_wam.sim.tasks import WORK_AREA, Judge

DisturbanceKind = Literal["none", "push", "camera", "lag"]
FIRST, LAST = 2, 9
"""Control steps between which it happens: one chunk's length, so every place in a chunk is as likely."""
_STREAM = 7


class Disturbance:
    """What happens in one episode, and when: at the same step of an episode of the same seed, whatever it is.

    - `push`: the named cube is put 6 to 10 cm elsewhere, and the present stage is judged from there;
    - `camera`: the cameras are pushed 3 to 6 cm aside, and stay there;
    - `lag`: from then on every action reaches the arm 3 to 5 control steps late.

    Attributes:
        step: number of control steps after which it happens (would happen, if it is `none`).
    """

    def __init__(self, kind: DisturbanceKind, seed: int) -> None:
        self.kind = kind
        self._rng = np.random.default_rng([_STREAM, seed])
        self.step, self._lag = int(self._rng.integers(FIRST, LAST + 1)), int(self._rng.integers(3, 6))
        self._waiting: deque[np.ndarray] = deque()

    def arriving(self, action: np.ndarray, step: int) -> np.ndarray:
        """Return the action that reaches the arm when `action` is sent in control step `step` (from 0)."""
        self._waiting.append(action)
        if len(self._waiting) > 1 + (self._lag if self.kind == "lag" and step >= self.step else 0):
            self._waiting.popleft()
        return self._waiting[0]

    def strike(self, world: Tabletop, judge: Judge) -> None:
        """Push the cube or the cameras; a lag shows in `arriving` alone."""
        if self.kind == "push":
            self._push_cube(world, judge)
        elif self.kind == "camera":
            world.camera_shift[1] = self._rng.choice([-1, 1]) * self._rng.uniform(0.03, 0.06)

    def _push_cube(self, world: Tabletop, judge: Judge) -> None:
        """Put the named cube elsewhere on the work area, clear of the others."""
        assert judge.stage is not None, "an episode whose stages are done is over"
        cube = judge.stage.cube
        low, high = np.array(WORK_AREA).T
        here, others = world.cubes[cube, :2], np.delete(world.cubes[:, :2], cube, axis=0)
        while True:
            angle = self._rng.uniform(0, 2 * np.pi)
            there = here + self._rng.uniform(0.06, 0.10) * np.array([np.cos(angle), np.sin(angle)])
            # The area is widened: a cube that is being pushed may be about to leave it.
            inside = np.all((low - 0.05 <= there) & (there <= high + 0.05))
            if inside and np.linalg.norm(others - there, axis=1).min() > 4 * world.cube_half:
                break
        address = world.scene.cube_qpos[cube]
        world.data.qpos[address : address + 2] = there
        mujoco.mj_forward(world.scene.model, world.data)
        judge.restart_stage(world.cubes, world.tip)
