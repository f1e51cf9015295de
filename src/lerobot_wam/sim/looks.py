"""How the tabletop can look: table, light, camera, cubes and what else lies about. Loads no simulator.

A look is data, and its numbers never change: a recording names its looks, and a new recording of it must be the same.
Policies learn from the `plain` look or from `varied` ones and are tested in `unseen` ones, each of which lies outside
all of those in everything at once. The cubes stay red, green and blue, and the camera stays in front, so instructions
keep their meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

RGB = tuple[float, float, float]
"""A colour, each part in [0, 1]."""


class Light(NamedTuple):
    """One lamp, and what reaches every surface whether lit or not."""

    position: tuple[float, float, float]
    """(m)."""
    direction: tuple[float, float, float]
    """Where it shines, of any length."""
    strength: RGB
    ambient: float


class Camera(NamedTuple):
    """Where a camera stands; it looks at the middle of the table."""

    elevation: float
    """Above the horizon (degrees)."""
    distance: float
    """From the point that it looks at (m)."""
    azimuth: float
    """Turn about the vertical away from the camera's usual side (degrees)."""
    fovy: float
    """Field of view (degrees)."""


class Distractor(NamedTuple):
    """A thing that no instruction names. It lies outside the cubes' lanes and is only seen: nothing bumps into it."""

    shape: Literal["box", "cylinder", "sphere", "capsule"]
    rgb: RGB
    x: float
    y: float
    """Its middle on the table (m)."""
    half: float
    """Half its height and width (m)."""


@dataclass(frozen=True)
class Look:
    """One look of the table."""

    name: str
    table: RGB
    floor: RGB | None
    """The background, seen where the table ends; None is black."""
    table_half_width: float
    """From the table's middle to its left and right edge (m)."""
    light: Light
    camera: Camera
    cube_half: float
    """Half the edge of a cube; half the height, and the radius, of a cylinder (m)."""
    distractors: tuple[Distractor, ...] = ()
    cube_shape: Literal["box", "cylinder"] = "box"


def _lamp(x: float, y: float, strength: float, ambient: float, tint: RGB = (1.0, 1.0, 1.0)) -> Light:
    """A lamp 1.5 m above the table that shines at its middle."""
    red, green, blue = tint
    return Light((x, y, 1.5), (-x, -y, -1.5), (strength * red, strength * green, strength * blue), ambient)


PLAIN = Look(
    "plain",
    table=(0.90, 0.87, 0.82),
    floor=None,
    table_half_width=0.75,
    light=Light((0.5, 0.4, 1.5), (-0.3, -0.25, -1), (0.55, 0.55, 0.55), 0.35),
    camera=Camera(52, 0.80, 0, 40),
    cube_half=0.025,
)
"""The usual scene."""

_DARK, _MID, _PALE = (0.25, 0.23, 0.22), (0.50, 0.50, 0.48), (0.80, 0.82, 0.84)
_GREY, _PURPLE = (0.45, 0.45, 0.45), (0.48, 0.20, 0.60)
_BOX_LEFT = Distractor("box", _GREY, -0.24, -0.30, 0.030)
_BOX_RIGHT = Distractor("box", _PURPLE, -0.28, 0.29, 0.028)
_CAN_LEFT = Distractor("cylinder", _PURPLE, -0.14, -0.30, 0.026)
_CAN_RIGHT = Distractor("cylinder", _GREY, -0.16, 0.31, 0.032)

VARIED: tuple[Look, ...] = (
    Look("linen", (0.93, 0.91, 0.86), _MID, 0.75, _lamp(0.5, 0.3, 0.55, 0.35), Camera(50, 0.80, -4, 40), 0.024),
    Look("oak", (0.80, 0.66, 0.47), _DARK, 0.36, _lamp(0.6, -0.3, 0.50, 0.38), Camera(55, 0.76, 5, 41), 0.026),
    Look("ash", (0.75, 0.72, 0.66), _PALE, 0.75, _lamp(0.2, 0.6, 0.60, 0.32), Camera(48, 0.84, 2, 39), 0.022),
    Look("stone", (0.62, 0.62, 0.60), _MID, 0.34, _lamp(0.8, 0.0, 0.48, 0.36), Camera(53, 0.79, -7, 42), 0.025),
    Look("snow", (0.97, 0.97, 0.97), _DARK, 0.75, _lamp(0.3, -0.6, 0.52, 0.30), Camera(57, 0.82, 8, 38), 0.027),
    Look("sand", (0.87, 0.79, 0.62), _PALE, 0.38, _lamp(0.7, 0.4, 0.62, 0.34), Camera(47, 0.78, 0, 43), 0.023),
    Look("rose", (0.92, 0.80, 0.78), _MID, 0.75, _lamp(0.4, -0.2, 0.45, 0.40), Camera(51, 0.86, -2, 38), 0.026),
    Look("mist", (0.78, 0.84, 0.90), _DARK, 0.35, _lamp(0.5, 0.5, 0.58, 0.33), Camera(54, 0.74, 4, 43), 0.024),
    Look(
        "walnut",
        (0.56, 0.42, 0.31),
        _PALE,
        0.75,
        _lamp(0.6, 0.2, 0.65, 0.38),
        Camera(49, 0.81, 7, 40),
        0.025,
        (_BOX_LEFT,),
    ),
    Look(
        "mint",
        (0.80, 0.90, 0.82),
        _MID,
        0.37,
        _lamp(0.3, 0.3, 0.50, 0.29),
        Camera(56, 0.77, -5, 42),
        0.022,
        (_CAN_RIGHT,),
    ),
    Look(
        "lilac",
        (0.85, 0.80, 0.91),
        _DARK,
        0.75,
        _lamp(0.8, -0.4, 0.55, 0.37),
        Camera(52, 0.85, 3, 39),
        0.027,
        (_BOX_RIGHT,),
    ),
    Look(
        "pearl",
        (0.84, 0.83, 0.84),
        _PALE,
        0.36,
        _lamp(0.2, -0.5, 0.60, 0.34),
        Camera(48, 0.76, -8, 43),
        0.023,
        (_CAN_LEFT,),
    ),
    Look(
        "clay",
        (0.74, 0.58, 0.48),
        _MID,
        0.75,
        _lamp(0.7, 0.6, 0.53, 0.36),
        Camera(55, 0.83, 6, 38),
        0.025,
        (_BOX_LEFT, _CAN_RIGHT),
    ),
    Look(
        "cream",
        (0.97, 0.93, 0.78),
        _DARK,
        0.38,
        _lamp(0.4, 0.0, 0.47, 0.31),
        Camera(50, 0.79, 1, 41),
        0.026,
        (_BOX_LEFT, _BOX_RIGHT),
    ),
    Look(
        "slate",
        (0.52, 0.55, 0.60),
        _PALE,
        0.75,
        _lamp(0.5, -0.4, 0.64, 0.39),
        Camera(53, 0.87, -6, 39),
        0.024,
        (_CAN_LEFT, _BOX_RIGHT),
    ),
    Look(
        "straw",
        (0.88, 0.84, 0.66),
        _MID,
        0.34,
        _lamp(0.6, 0.5, 0.57, 0.28),
        Camera(47, 0.75, -3, 42),
        0.023,
        (_CAN_LEFT, _CAN_RIGHT),
    ),
)
"""Looks to learn from: light tables, light from before the arm, small turns of the camera."""

_YELLOW, _WHITE = (0.95, 0.82, 0.12), (0.95, 0.95, 0.95)
_BALL_LEFT = Distractor("sphere", _YELLOW, -0.20, -0.29, 0.030)
_BALL_RIGHT = Distractor("sphere", _WHITE, -0.25, 0.29, 0.034)
_ROLL_LEFT = Distractor("capsule", _WHITE, -0.26, -0.28, 0.022)
_ROLL_RIGHT = Distractor("capsule", _YELLOW, -0.15, 0.29, 0.024)
_WARM, _COLD = (1.0, 0.82, 0.62), (0.72, 0.86, 1.0)

UNSEEN: tuple[Look, ...] = (
    Look(
        "charcoal",
        (0.30, 0.30, 0.33),
        (0.55, 0.30, 0.15),
        0.32,
        _lamp(-0.9, 0.5, 0.80, 0.45),
        Camera(63, 0.92, 13, 36),
        0.030,
        (_BALL_LEFT, _ROLL_RIGHT),
        "box",
    ),
    Look(
        "midnight",
        (0.14, 0.16, 0.30),
        (0.60, 0.55, 0.20),
        0.75,
        _lamp(-0.6, -0.9, 0.95, 0.50, _WARM),
        Camera(43, 0.71, -14, 45),
        0.020,
        (_BALL_RIGHT,),
        "cylinder",
    ),
    Look(
        "mustard",
        (0.78, 0.62, 0.15),
        (0.20, 0.30, 0.45),
        0.31,
        _lamp(-1.0, 0.0, 0.30, 0.24),
        Camera(64, 0.70, -13, 46),
        0.020,
        (_ROLL_LEFT, _BALL_RIGHT),
        "box",
    ),
    Look(
        "plum",
        (0.36, 0.18, 0.34),
        (0.55, 0.30, 0.15),
        0.75,
        _lamp(-0.5, 1.0, 0.80, 0.50, _COLD),
        Camera(42, 0.92, 15, 36),
        0.030,
        (_ROLL_RIGHT,),
        "cylinder",
    ),
    Look(
        "teal",
        (0.10, 0.40, 0.44),
        (0.60, 0.55, 0.20),
        0.32,
        _lamp(-0.8, -0.6, 0.78, 0.46),
        Camera(62, 0.71, 14, 45),
        0.030,
        (_BALL_LEFT, _BALL_RIGHT),
        "box",
    ),
    Look(
        "cocoa",
        (0.30, 0.19, 0.12),
        (0.20, 0.30, 0.45),
        0.75,
        _lamp(-1.0, 0.4, 0.50, 0.27, _WARM),
        Camera(43, 0.70, -15, 46),
        0.030,
        (_BALL_LEFT,),
        "cylinder",
    ),
    Look(
        "fuchsia",
        (0.84, 0.44, 0.66),
        (0.60, 0.55, 0.20),
        0.31,
        _lamp(-0.7, -0.7, 0.32, 0.22, _COLD),
        Camera(42, 0.93, 14, 35),
        0.020,
        (_ROLL_LEFT, _ROLL_RIGHT),
        "box",
    ),
    Look(
        "apricot",
        (0.92, 0.58, 0.30),
        (0.20, 0.30, 0.45),
        0.75,
        _lamp(-0.9, 0.8, 0.80, 0.48),
        Camera(64, 0.94, -13, 35),
        0.020,
        (_ROLL_RIGHT, _BALL_LEFT),
        "cylinder",
    ),
)
"""Looks to be tested in: dark or strong tables, light from behind the arm, too bright or too dim, cameras turned and
raised or lowered further, cubes larger or smaller than any, half of them cylinders, and other distractors."""

LOOKS: dict[str, tuple[Look, ...]] = {
    "plain": (PLAIN,),
    "varied": VARIED,
    "unseen": UNSEEN,
    **{look.name: (look,) for look in (*VARIED, *UNSEEN)},
}
"""What a `looks` option names: a group, from which every episode draws, or one look."""


def draw_look(looks: str, stream: Sequence[int]) -> Look:
    """Draw one of `LOOKS[looks]`; the same seeds `stream` give the same look."""
    group = LOOKS[looks]
    return group[np.random.default_rng(stream).integers(len(group))]
