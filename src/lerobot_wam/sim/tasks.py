"""Language tasks on the tabletop: what is said, when it succeeds, and scenes in which it can be done."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from lerobot_wam.sim.arms import ARMS, get_arm
from lerobot_wam.sim.grasping import Delivery, place_apart
from lerobot_wam.sim.tabletop import COLOURS, CUBE_HALF, PLATE_HALF, PLATES

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
    "place": "put the {} cube on the {} plate",
    "stack": "stack the {} cube on the {} cube",
}
TARGETS: dict[str, tuple[str, ...]] = {"place": PLATES, "stack": COLOURS}
"""What the verbs that need a gripper put a cube on."""

PUSH_DISTANCE = 0.05
"""A push succeeds when its cube has gone this far in the named direction (m), and no further sideways than along."""
STAY_TOLERANCE = 0.015
"""A cube that was not named has stayed if its centre moved less than this (m)."""
TOUCH_DISTANCE = 0.012
"""A touch succeeds when the tool tip is this close to the cube's surface (m)."""

TIME_LIMITS = {(False, 1): 50, (False, 2): 110, (True, 1): 100, (True, 2): 220}
"""Steps of 0.1 s for a task, by whether it takes a gripper and by its number of stages."""

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
    target: str | None = None
    """Colour of the plate or cube that it is put on, of a verb that has `TARGETS`."""

    def __post_init__(self) -> None:
        if self.verb not in _SENTENCES:
            raise ValueError(f"verb {self.verb!r} is unknown; expected one of {', '.join(_SENTENCES)}")
        if self.colour not in COLOURS:
            raise ValueError(f"colour {self.colour!r} is unknown; expected one of {', '.join(COLOURS)}")
        targets = TARGETS.get(self.verb, (None,))
        if self.target not in targets or (self.verb, self.target) == ("stack", self.colour):
            raise ValueError(
                f"target {self.target!r} of {self.verb}-{self.colour} makes no task; expected "
                f"{', '.join(str(target) for target in targets if target != self.colour)}"
            )

    @property
    def name(self) -> str:
        """Short name, such as `left-red` or `place-red-yellow`."""
        return "-".join(part for part in (self.verb, self.colour, self.target) if part is not None)

    @property
    def cube(self) -> int:
        """Index of the cube in `COLOURS`."""
        return COLOURS.index(self.colour)

    @property
    def sentence(self) -> str:
        """The stage in words."""
        return _SENTENCES[self.verb].format(self.colour, self.target)


@dataclass(frozen=True)
class Task:
    """One stage, or two that must succeed in this order."""

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if len({stage.target is None for stage in self.stages}) != 1:
            raise ValueError(f"task {self.name!r} mixes pushing and grasping; expected stages of one kind")

    @property
    def grasps(self) -> bool:
        """Whether it takes a gripper."""
        return self.stages[0].target is not None

    @property
    def time_limit(self) -> int:
        """Steps of 0.1 s in which it should be done."""
        return TIME_LIMITS[self.grasps, len(self.stages)]

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


HELD_OUT_GRASPS = {
    "place": ("place-red-purple", "place-green-cyan", "place-blue-yellow"),
    "stack": ("stack-red-green", "stack-green-blue"),
}
"""A third of the grasping tasks; what is left shows every colour in every role."""


def _grasp_tasks(verb: str) -> dict[str, tuple[Task, ...]]:
    pairs = [pair for pair in itertools.product(COLOURS, TARGETS[verb]) if verb != "stack" or pair[0] != pair[1]]
    tasks = [Task((Stage(verb, *pair),)) for pair in pairs]
    held_out = HELD_OUT_GRASPS[verb]
    return {
        verb: tuple(tasks),
        f"{verb}_seen": tuple(task for task in tasks if task.name not in held_out),
        f"{verb}_unseen": tuple(task for task in tasks if task.name in held_out),
    }


GRASP_TASKS: dict[str, tuple[Task, ...]] = {
    **_grasp_tasks("place"),
    **_grasp_tasks("stack"),
    "tower": tuple(
        Task((Stage("stack", middle, below), Stage("stack", top, middle)))
        for top, middle, below in itertools.permutations(COLOURS)
    ),
}
"""Tasks for arms with a gripper: `place` (9) and `stack` (6), each split into `_seen` and `_unseen`, and `tower` (6):
two stacks, one upon the other."""


def parse_task(name: str) -> Task:
    """Return the task called `name`: `verb-colour`, or two of them joined by `+`.

    Raises:
        ValueError: not such a name, or both stages name the same cube.
    """
    parts = [part.strip().split("-") for part in name.split("+")]
    if len(parts) > 2 or any(len(part) not in (2, 3) for part in parts):
        raise ValueError(
            f"task {name!r} is malformed; expected e.g. 'left-red', 'left-red+touch-blue' or 'place-red-yellow'"
        )
    stages = tuple(Stage(*part) for part in parts)
    if len({stage.colour for stage in stages}) != len(stages):
        raise ValueError(f"task {name!r} names one cube twice; expected two different colours")
    task = Task(stages)
    if task.grasps and len({stage.target for stage in stages}) != len(stages):
        raise ValueError(f"task {name!r} puts two cubes on one target; expected two different ones")
    return task


def check_gripper(tasks: tuple[Task, ...], arm: str) -> None:
    """Refuse tasks that `arm` cannot do.

    Raises:
        ValueError: one takes a gripper and the arm has none.
    """
    for task in tasks:
        if task.grasps and get_arm(arm).gripper is None:
            able = ", ".join(name for name, spec in ARMS.items() if spec.gripper is not None)
            raise ValueError(f"task {task.name!r} takes a gripper and arm {arm!r} has none; expected one of {able}")


def select_tasks(text: str) -> tuple[Task, ...]:
    """Return the tasks that a `task` option names, in the order in which seeds cycle through them.

    Args:
        text: `all` (single and two-stage tasks, alternating, the single ones repeated), or a comma-separated list of
            groups, the keys of `TASK_GROUPS` and `GRASP_TASKS`, and task names (see `parse_task`).

    Raises:
        ValueError: a part is neither a group nor a task.
    """
    groups = TASK_GROUPS | GRASP_TASKS
    if text == "all":
        repeats = len(TWO_STAGE_TASKS) // len(SINGLE_TASKS)
        return tuple(itertools.chain.from_iterable(zip(SINGLE_TASKS * repeats, TWO_STAGE_TASKS, strict=True)))
    chosen: list[Task] = []
    for part in (part.strip() for part in text.split(",")):
        if part not in groups and "-" not in part:  # a task has a hyphen, so this was meant as a group
            known = ", ".join(["all", *groups])
            raise ValueError(f"{part!r} is no group of tasks; expected one of {known}, or tasks such as 'left-red'")
        chosen.extend(groups.get(part) or (parse_task(part),))
    return tuple(chosen)


class Judge:
    """Follows one episode and says, once per control step, how far the task is.

    A stage moves on only when its own condition holds; an unnamed cube that moves fails the episode for good. The
    cube of a stage that is done may move afterwards.
    """

    def __init__(
        self,
        task: Task,
        cubes: np.ndarray,
        tip: np.ndarray,
        cube_half: float = CUBE_HALF,
        plates: np.ndarray | None = None,
    ) -> None:
        """Start an episode.

        Args:
            task: what has to be done.
            cubes: cube centres, (3, 3), in metres.
            tip: tool tip, (3,), in metres.
            cube_half: half the edge of a cube (m).
            plates: plate centres, (3, 3), in metres, for tasks with plates.
        """
        self.task = task
        self._plates = plates
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

    def goal(self, stage: Stage, cubes: np.ndarray) -> np.ndarray:
        """Return where the centre of the stage's cube shall rest, (3,) in metres, on the target as it lies now."""
        assert stage.target is not None
        if stage.verb == "stack":
            return cubes[COLOURS.index(stage.target)] + np.array([0.0, 0.0, 2 * self._cube_half])
        assert self._plates is not None
        return self._plates[PLATES.index(stage.target)] + np.array([0.0, 0.0, PLATE_HALF[2] + self._cube_half])

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
        if stage is not None and stage.target is not None:
            self._delivery = Delivery(cubes[stage.cube], self.goal(stage, cubes), self._gap)

    def _measure(self, stage: Stage, cubes: np.ndarray, tip: np.ndarray) -> tuple[bool, float]:
        """Return whether the stage's condition holds now, and its part done in [0, 1]."""
        if stage.verb == "touch":
            gap = self._gap_to(cubes[stage.cube], tip)
            return gap <= TOUCH_DISTANCE, float(np.clip(1 - gap / max(self._gap, 1e-6), 0, 1))
        if stage.target is not None:
            cube = cubes[stage.cube]
            return self._delivery.measure(cube, self.goal(stage, cubes), self._gap_to(cube, tip))
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
    plates: np.ndarray | None = None
    """Centres in the order of `PLATES`, (3, 2), in metres; None where no plates lie on the table."""


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

    A task that takes a gripper has scenes of its own, with everything apart; plates lie there if it names one.

    Cubes are dropped one by one; after 40 unsuccessful drops everything starts again, so two cubes that leave no
    place for the third cannot stop it.

    Raises:
        RuntimeError: no scene after 2000 restarts, which the sizes above rule out.
    """
    low, high = np.array(WORK_AREA).T
    yaw = rng.uniform(-0.25, 0.25, len(COLOURS))
    if task is not None and task.grasps:
        xy = place_apart(rng)
        plates = xy[len(COLOURS) :] if any(stage.verb == "place" for stage in task.stages) else None
        return Placement(xy[: len(COLOURS)], yaw, plates)
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
