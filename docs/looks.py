"""Draw the tabletop in every look, as the front camera sees it, into docs/looks.png.

python docs/looks.py
"""

from itertools import cycle
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from lerobot_wam.sim.looks import PLAIN, UNSEEN, VARIED
from lerobot_wam.sim.tabletop import Tabletop
from lerobot_wam.sim.tasks import place_cubes

ARMS = ("viperx", "so101", "panda", "ur5e")
TILE, COLUMNS, GAP = 108, 8, 4
"""Edge of a picture, pictures in a row, and white below a group (pixels)."""


def sheet() -> np.ndarray:
    """The plain look, the varied ones and the unseen ones, with each arm in turn."""
    rows = []
    for looks in ((PLAIN,) * len(ARMS), VARIED, UNSEEN):
        tiles = []
        for number, (look, arm) in enumerate(zip(looks, cycle(ARMS), strict=False)):
            world, placement = Tabletop(arm), place_cubes(np.random.default_rng(number), None, look.cube_half)
            world.reset(placement.xy, placement.yaw, look)
            tiles.append(world.image(TILE))
        tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % COLUMNS)
        rows += [np.concatenate(tiles[start : start + COLUMNS], axis=1) for start in range(0, len(tiles), COLUMNS)]
        rows.append(np.full_like(rows[-1][:GAP], 255))
    return np.concatenate(rows[:-1])


if __name__ == "__main__":
    iio.imwrite(Path(__file__).with_name("looks.png"), sheet())
