"""What can be chosen about a world besides its arm: cameras, looks and control rate. Loads no simulator."""

from __future__ import annotations

from collections.abc import Sequence

from lerobot_wam.sim.arms import get_arm
from lerobot_wam.sim.looks import LOOKS

CAMERAS: dict[str, tuple[float, float]] = {"front": (1.0, 0.0), "side": (0.0, -1.0)}
"""The horizontal direction (x, y) in which each camera stands, seen from the middle of the table. Tasks are worded for
`front`."""
CONTROL_HZ = 10
"""The usual control rate; step counts in this folder are given at it."""
SUBSTEPS = {10: 25, 20: 13}
"""Physics steps within one control step, by control rate (Hz)."""


def check_world(arm: str, cameras: Sequence[str], fps: int, looks: str = "plain") -> None:
    """Refuse what no world can be.

    Raises:
        ValueError: unknown arm, unknown or repeated camera, no camera, another control rate, or unknown looks.
    """
    get_arm(arm)
    if not cameras or len(set(cameras)) != len(cameras) or not set(cameras) <= set(CAMERAS):
        raise ValueError(f"cameras are {list(cameras)}; expected one or more of {', '.join(CAMERAS)}, each once")
    if fps not in SUBSTEPS:
        raise ValueError(f"fps is {fps}; the simulator runs at {' or '.join(map(str, SUBSTEPS))}")
    if looks not in LOOKS:
        raise ValueError(f"looks is {looks!r}; expected plain, varied, unseen or the name of one look")
