"""Language tasks on the tabletop: what is said, when it succeeds, and scenes in which it can be done."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from lerobot_wam.sim.tabletop import COLOURS, CUBE_HALF

VERBS: tuple[str, ...] = ("left", "right", "away", "touch")
DIRECTIONS = {
    "left": np.array([0.0, -1.0]),
    "right": np.array([0.0, 1.0]),
    "away": np.array([-1.0, 0.0]),
}
"""Unit vectors (x, y) of the pushes, as the viewer of the front camera's image sees them."""
_SENTENCES = {
    "left": "push the {} cube to the left",
    "right": "push the {} cube to the right",
    "away": "push the {} cube away",
    "touch": "touch the {} cube",
}

PUSH_DISTANCE = 0.05
"""A push succeeds when its cube has gone this far in the named direction (m), and no further sideways than along."""
STAY_TOLERANCE = 0.015
"""A cube that was not named has stayed if its centre moved less than this (m)."""
TOUCH_DISTANCE = 0.012
"""A touch succeeds when the tool tip is this close to the cube's surface (m)."""

WORK_AREA = ((-0.07, 0.08), (-0.155, 0.155))
"""Cube centres at the start of an episode: x range and y range (m)."""
_TOOL_ROOM = 0.06
"""Free length behind a cube in which the tool comes down (m)."""
_PUSH_ROOM = 0.085
"""Free length in front of a cube that is pushed (m)."""
_SIDE_ROOM = 0.018
"""Free width on both sides of that lane (m)."""
_TRIES_PER_PLACEMENT = 40
_PLACEMENTS = 2000


@dataclass(frozen=True)
class Stage:
    """One thing to do with one cube."""

    verb: str
    colour: str

    def __post_init__(self) -> None:
        if self.verb not in VERBS:
            raise ValueError(f"verb {self.verb!r} is unknown; expected one of {', '.join(VERBS)}")
        if self.colour not in COLOURS:
            raise ValueError(f"colour {self.colour!r} is unknown; expected one of {', '.join(COLOURS)}")

    @property
    def name(self) -> str:
        """Short name, such as `left-red`."""
        return f"{self.verb}-{self.colour}"

    @property
    def cube(self) -> int:
        """Index of the cube in `COLOURS`."""
        return COLOURS.index(self.colour)

    @property
    def sentence(self) -> str:
        """The stage in words."""
        return _SENTENCES[self.verb].format(self.colour)


@dataclass(frozen=True)
class Task:
    """One stage, or two that must succeed in this order."""

    stages: tuple[Stage, ...]

    @property
    def name(self) -> str:
        """Short name, such as `left-red` or `left-red+touch-blue`."""
        return "+".join(stage.name for stage in self.stages)

    @property
    def instruction(self) -> str:
        """The task in words, such as "push the red cube to the left, then touch the blue cube"."""
        return ", then ".join(stage.sentence for stage in self.stages)


SINGLE_TASKS: tuple[Task, ...] = tuple(
    Task((Stage(verb, colour),)) for verb, colour in itertools.product(VERBS, COLOURS)
)


def _two_stage_tasks() -> tuple[Task, ...]:
    pairs = [
        Task((*first.stages, *second.stages))
        for first, second in itertools.product(SINGLE_TASKS, SINGLE_TASKS)
        if first.stages[0].colour != second.stages[0].colour
    ]
    order = np.random.default_rng(0).permutation(len(pairs))
    return tuple(pairs[index] for index in order)


TWO_STAGE_TASKS: tuple[Task, ...] = _two_stage_tasks()
"""All ordered pairs with different cubes (96), in a fixed shuffled order so that any run of them is diverse."""

HELD_OUT = ("left-red", "right-green", "away-blue")
"""The cells of verb and colour that training never shows; each of their verbs and colours it shows in other cells."""


def _all_seen(task: Task) -> bool:
    return all(stage.name not in HELD_OUT for stage in task.stages)


TASK_GROUPS: dict[str, tuple[Task, ...]] = {
    "single": SINGLE_TASKS,
    "seen": tuple(task for task in SINGLE_TASKS if _all_seen(task)),
    "unseen": tuple(task for task in SINGLE_TASKS if not _all_seen(task)),
    "two_stage": TWO_STAGE_TASKS,
    "two_stage_seen": tuple(task for task in TWO_STAGE_TASKS if _all_seen(task)),
    "two_stage_unseen": tuple(task for task in TWO_STAGE_TASKS if not _all_seen(task)),
}
"""What a `task` option names."""


def parse_task(name: str) -> Task:
    """Return the task called `name`: `verb-colour`, or two of them joined by `+`.

    Raises:
        ValueError: not such a name, or both stages name the same cube.
    """
    parts = [part.strip().split("-") for part in name.split("+")]
    if len(parts) > 2 or any(len(part) != 2 for part in parts):
        raise ValueError(f"task {name!r} is malformed; expected e.g. 'left-red' or 'left-red+touch-blue'")
    stages = tuple(Stage(*part) for part in parts)
    if len({stage.colour for stage in stages}) != len(stages):
        raise ValueError(f"task {name!r} names one cube twice; expected two different colours")
    return Task(stages)


def select_tasks(text: str) -> tuple[Task, ...]:
    """Return the tasks that a `task` option names, in the order in which seeds cycle through them.

    Args:
        text: `all` (single and two-stage tasks, alternating, the single ones repeated), or a comma-separated list of
            groups, the keys of `TASK_GROUPS`, and task names (see `parse_task`).
    """
    if text == "all":
        repeats = len(TWO_STAGE_TASKS) // len(SINGLE_TASKS)
        return tuple(itertools.chain.from_iterable(zip(SINGLE_TASKS * repeats, TWO_STAGE_TASKS, strict=True)))
    chosen: list[Task] = []
    for part in (part.strip() for part in text.split(",")):
        chosen.extend(TASK_GROUPS.get(part) or (parse_task(part),))
    return tuple(chosen)


class Judge:
    """Follows one episode and says, once per control step, how far the task is.

    A stage moves on only when its own condition holds; an unnamed cube that moves fails the episode for good. The
    cube of a stage that is done may move afterwards.
    """

    def __init__(self, task: Task, cubes: np.ndarray, tip: np.ndarray, cube_half: float = CUBE_HALF) -> None:
        """Start an episode.

        Args:
            task: what has to be done.
            cubes: cube centres, (3, 3), in metres.
            tip: tool tip, (3,), in metres.
            cube_half: half the edge of a cube (m).
        """
        self.task = task
        self.stage_index = 0
        self.failed = False
        self.progress = 0.0
        self._start = cubes.copy()
        self._cube_half = cube_half
        self._begin_stage(cubes, tip)

    @property
    def success(self) -> bool:
        """All stages are done and no other cube has moved."""
        return not self.failed and self.stage_index == len(self.task.stages)

    @property
    def stage(self) -> Stage | None:
        """The stage to work on, or None when all are done."""
        return self.task.stages[self.stage_index] if self.stage_index < len(self.task.stages) else None

    @property
    def anchor(self) -> np.ndarray:
        """Where the cubes were when the present stage began, (3, 3), in metres."""
        return self._anchor

    def update(self, cubes: np.ndarray, tip: np.ndarray) -> None:
        """Take note of the world after a control step (arguments as in the constructor)."""
        if self.failed:
            return
        allowed = {stage.cube for stage in self.task.stages[: self.stage_index]}
        stage = self.stage
        if stage is not None and stage.verb != "touch":
            allowed.add(stage.cube)
        moved = np.linalg.norm(cubes - self._start, axis=1)
        if any(moved[cube] > STAY_TOLERANCE for cube in range(len(COLOURS)) if cube not in allowed):
            self.failed = True
            return
        if stage is None:
            return
        done, part = self._measure(stage, cubes, tip)
        if done:
            self.stage_index += 1
            self._begin_stage(cubes, tip)
            part = 0.0
        self.progress = max(self.progress, (self.stage_index + part) / len(self.task.stages))

    def restart_stage(self, cubes: np.ndarray, tip: np.ndarray) -> None:
        """Judge the present stage from here, because someone else than the arm has moved a cube."""
        self._start = cubes.copy()
        self._begin_stage(cubes, tip)
        self.progress = self.stage_index / len(self.task.stages)

    def _begin_stage(self, cubes: np.ndarray, tip: np.ndarray) -> None:
        self._anchor = cubes.copy()
        stage = self.stage
        self._gap = self._gap_to(cubes[stage.cube], tip) if stage is not None else 0.0

    def _measure(self, stage: Stage, cubes: np.ndarray, tip: np.ndarray) -> tuple[bool, float]:
        """Return whether the stage's condition holds now, and its part done in [0, 1]."""
        if stage.verb == "touch":
            gap = self._gap_to(cubes[stage.cube], tip)
            return gap <= TOUCH_DISTANCE, float(np.clip(1 - gap / max(self._gap, 1e-6), 0, 1))
        shift = (cubes[stage.cube] - self._anchor[stage.cube])[:2]
        direction = DIRECTIONS[stage.verb]
        along = float(shift @ direction)
        aside = float(np.linalg.norm(shift - along * direction))
        return along >= PUSH_DISTANCE and aside <= along, float(np.clip(along / PUSH_DISTANCE, 0, 1))

    def _gap_to(self, cube: np.ndarray, tip: np.ndarray) -> float:
        """Distance (m) between the tool tip and the surface of a cube taken as square to the table."""
        outside = np.maximum(np.abs(tip - cube) - self._cube_half, 0.0)
        return float(np.linalg.norm(outside))


@dataclass(frozen=True)
class Placement:
    """Where the cubes lie at the start."""

    xy: np.ndarray
    """Centres in the order of `COLOURS`, (3, 2), in metres."""
    yaw: np.ndarray
    """Turns about the vertical, (3,), in radians."""


def _lane_is_free(cube: np.ndarray, others: np.ndarray, direction: np.ndarray, half: float) -> bool:
    """Whether `cube` (2,) can be pushed along `direction` without its lane meeting one of `others` (N, 2)."""
    offset = others - cube
    along = offset @ direction
    aside = np.abs(offset @ np.array([-direction[1], direction[0]]))
    beyond = (along > 2 * half + _PUSH_ROOM) | (along < -(2 * half + _TOOL_ROOM))
    return bool(np.all(beyond | (aside > 2 * half + _SIDE_ROOM)))


def _feasible(xy: np.ndarray, task: Task | None, half: float) -> bool:
    """Whether every single-stage task can be done in this scene, and then also `task`, stage after stage."""
    for cube in range(len(xy)):
        others = np.delete(xy, cube, axis=0)
        if not all(_lane_is_free(xy[cube], others, direction, half) for direction in DIRECTIONS.values()):
            return False
    if task is None or len(task.stages) == 1:
        return True
    xy = xy.copy()
    for stage in task.stages:
        others = np.delete(xy, stage.cube, axis=0)
        if stage.verb == "touch":
            continue
        direction = DIRECTIONS[stage.verb]
        if not _lane_is_free(xy[stage.cube], others, direction, half):
            return False
        xy[stage.cube] += direction * (PUSH_DISTANCE + 0.02)
    return True


def place_cubes(rng: np.random.Generator, task: Task | None = None, cube_half: float = CUBE_HALF) -> Placement:
    """Draw a scene of cubes of an edge of 2 · `cube_half` (m) in which all twelve single tasks can be done, and `task`
    where it has two stages.

    Cubes are dropped one by one; after 40 unsuccessful drops everything starts again, so two cubes that leave no
    place for the third cannot stop it.

    Raises:
        RuntimeError: no scene after 2000 restarts, which the sizes above rule out.
    """
    low, high = np.array(WORK_AREA).T
    yaw = rng.uniform(-0.25, 0.25, len(COLOURS))
    for _ in range(_PLACEMENTS):
        placed: np.ndarray = np.empty((0, 2))
        for _ in range(_TRIES_PER_PLACEMENT):
            trial = np.vstack([placed, rng.uniform(low, high)])
            if not _feasible(trial, None, cube_half):
                continue
            placed = trial
            if len(placed) == len(COLOURS):
                placed = placed[rng.permutation(len(COLOURS))]
                if _feasible(placed, task, cube_half):
                    return Placement(placed, yaw)
                break
    raise RuntimeError(f"no feasible scene for {task} after {_PLACEMENTS} restarts; enlarge WORK_AREA")
