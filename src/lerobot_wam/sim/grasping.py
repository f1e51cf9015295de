"""Cubes that are picked up and put somewhere: scenes with room for it, and how far it has gone."""

from __future__ import annotations

import numpy as np

from lerobot_wam.sim.tabletop import COLOURS, PLATES

PUT_TOLERANCE = 0.025
"""A cube is on its target if its centre is this near to the target's, seen from above (m), and as high as it rests."""
_REST_HEIGHT = 0.006
_REST_TRAVEL = 0.001
"""A cube rests that is within the first of its height on the target and has moved less than the second (m) in the last
control step."""
_RELEASE_GAP = 0.015
"""A cube has been let go when the tool tip is this far from its surface (m)."""
_GRASP_LIFT, _LIFT = 0.015, 0.04
"""A cube at the tip and this far above where it lay has been grasped, and lifted (m). Tipped over an edge, its centre
rises by 0.010 m at most."""
_SPACING = 0.10
"""Least distance between the centres of any two things in a scene (m): open fingers fit in between."""
_AREA = ((-0.10, 0.10), (-0.19, 0.19))
"""Centres of cubes and plates at the start: x range and y range (m)."""


class Delivery:
    """Follows one cube from where it lies to where it shall lie.

    Progress counts five parts of 0.2: the tip has reached the cube, the cube is grasped, lifted, above its goal, and
    rests there with the hand withdrawn.
    """

    def __init__(self, cube: np.ndarray, goal: np.ndarray, gap: float) -> None:
        """Begin where the cube's centre is at `cube` (3,); the other arguments are as in `measure`."""
        self._start, self._last = cube.copy(), cube.copy()
        self._far = float(np.linalg.norm((goal - cube)[:2]))
        self._gap = gap

    def measure(self, cube: np.ndarray, goal: np.ndarray, gap: float) -> tuple[bool, float]:
        """Return whether the cube rests at its goal, let go, and the part done at present, in [0, 1].

        Args:
            cube: its centre, (3,), in metres.
            goal: where its centre shall rest, (3,), in metres.
            gap: distance between the tool tip and its surface (m).
        """
        moved, self._last = np.linalg.norm(cube - self._last), cube.copy()
        away = float(np.linalg.norm((goal - cube)[:2]))
        rise = cube[2] - self._start[2]
        resting = away <= PUT_TOLERANCE and abs(cube[2] - goal[2]) <= _REST_HEIGHT and moved <= _REST_TRAVEL
        if resting and gap >= _RELEASE_GAP:
            return True, 1.0
        if gap > 0 or rise < _GRASP_LIFT:
            return False, 0.2 * float(np.clip(1 - gap / max(self._gap, 1e-6), 0, 1))
        if rise < _LIFT:
            return False, 0.4
        return False, 0.6 + 0.2 * float(np.clip(1 - away / max(self._far, 1e-6), 0, 1))


def place_apart(rng: np.random.Generator) -> np.ndarray:
    """Draw centres for the cubes and then the plates, (6, 2) in metres, far enough apart for open fingers."""
    low, high = np.array(_AREA).T
    while True:
        placed: list[np.ndarray] = []
        for _ in range(200):
            centre = rng.uniform(low, high)
            if all(np.linalg.norm(centre - other) >= _SPACING for other in placed):
                placed.append(centre)
            if len(placed) == len(COLOURS) + len(PLATES):
                return np.array(placed)
