"""Recorded episodes as plain arrays, each a deterministic function of (recipe, index). Knows nothing of LeRobot."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from lerobot_wam.sim.arms import get_arm
from lerobot_wam.sim.experts import (
    FOLLOW_THROUGH,
    HOLD,
    PUSH_HEIGHT,
    TRAVEL_HEIGHT,
    InverseKinematics,
    PlayExpert,
    TaskExpert,
)
from lerobot_wam.sim.looks import Look, draw_look
from lerobot_wam.sim.options import CONTROL_HZ, check_world
from lerobot_wam.sim.tabletop import Tabletop
from lerobot_wam.sim.tasks import WORK_AREA, Judge, Task, check_gripper, place_cubes, select_tasks

PLAY = "play"
"""The part of `Recipe.tasks` that records goal-free play, and the text of its episodes."""
NAMED_PLAY = "named_play"
"""The same, each episode called after what happened in it, as someone might who plays and then says what was done."""
_RECORDING_STREAM = 2
_LOOK_STREAM = 5
_MAX_ATTEMPTS = 50
_CLUMSY_STEPS = (3, 14)
_CLUMSY_NOISE = 0.05  # rad


@dataclass(frozen=True)
class Recipe:
    """Everything that an episode depends on besides its index. Steps are of 0.1 s, whatever `fps` is."""

    tasks: str = "single"
    """What `select_tasks` takes, `play`, `named_play`, or several with shares, such as `single:12,two_stage:3,play:1`.
    Episodes cycle through the shares, and within each through its tasks."""
    arm: str = "viperx"
    """A key of `ARMS`."""
    image_size: int = 64
    """Edge of the images (pixels)."""
    seed: int = 0
    """Recordings of different seeds share no scene, and none shares one with an evaluation."""
    noise: float = 0.015
    """Standard deviation of the noise on executed joint targets (rad), times `ArmSpec.tremble`; labels stay clean
    (DART)."""
    scattered_starts: float = 0.4
    """Share of task episodes that start with the arm anywhere above the table, often close to a cube, instead of at
    home. A policy that has missed finds itself there, and a new window must know how to go on."""
    clumsy_starts: float = 0.3
    """Share of task episodes that start in the middle of a clumsy attempt at the task, often with the tip slipped off
    the cube. The attempt is not recorded; what follows is, judged from there."""
    follow_through: int = FOLLOW_THROUGH
    """Steps for which the expert goes on after success."""
    hold_steps: int = HOLD
    """Steps recorded after that, the arm at rest."""
    play_steps: tuple[int, int] = (16, 24)
    """Shortest and longest play episode."""
    play_text: str = PLAY
    """The `task` of play episodes, and of named ones in which no task came about."""
    cameras: tuple[str, ...] = ("front",)
    """Keys of `CAMERAS`."""
    fps: int = CONTROL_HZ
    """Control steps, and frames, per second (a key of `SUBSTEPS`)."""
    looks: str = "plain"
    """A key of `LOOKS`; each episode draws its look from it."""

    file: ClassVar[str] = "wam_sim.json"

    def __post_init__(self) -> None:
        check_world(self.arm, self.cameras, self.fps, self.looks)
        if self.image_size < 16:
            raise ValueError(f"image_size is {self.image_size} pixels; expected 16 or more")
        if self.noise < 0:
            raise ValueError(f"noise is {self.noise} rad; expected 0 or more")
        if min(self.scattered_starts, self.clumsy_starts) < 0 or self.scattered_starts + self.clumsy_starts > 1:
            raise ValueError(
                f"scattered_starts is {self.scattered_starts}, clumsy_starts {self.clumsy_starts}; expected shares of "
                "0 or more that sum to 1 at most"
            )
        for part in self.shares():
            if part not in (PLAY, NAMED_PLAY):
                check_gripper(select_tasks(part), self.arm)

    def shares(self) -> tuple[str, ...]:
        """Return one cycle of `tasks`, each part as often as its share says."""
        if ":" not in self.tasks:
            return (self.tasks,)
        cycle: list[str] = []
        for part in self.tasks.split(","):
            name, _, share = part.strip().partition(":")
            if not share.isdigit() or int(share) < 1:
                raise ValueError(f"share {share!r} of {name!r} in tasks is no whole number; expected NAME:COUNT,...")
            cycle.extend([name] * int(share))
        return tuple(cycle)

    @property
    def robot_type(self) -> str:
        """The arm's."""
        return get_arm(self.arm).robot_type

    @property
    def state_names(self) -> list[str]:
        """Joint positions."""
        return [f"{name}.pos" for name in get_arm(self.arm).joint_names]

    @property
    def action_names(self) -> list[str]:
        """Joint targets."""
        return self.state_names

    def make_episode(self, index: int) -> tuple[Episode, int]:
        """Return what the function of this name does."""
        return make_episode(self, index)

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON types."""
        return {**asdict(self), "play_steps": list(self.play_steps), "cameras": list(self.cameras)}


class Episode(NamedTuple):
    """One recorded episode of T steps."""

    images: dict[str, np.ndarray]
    """Each camera's view before each action, (T, S, S, 3) uint8."""
    states: np.ndarray
    """(T, dof) float32: joint positions before each action (rad; a gripper's opening in [0, 1])."""
    actions: np.ndarray
    """(T, dof) float32: the expert's clean joint targets (rad)."""
    text: str
    """The instruction."""

    def save(self, path: Path) -> None:
        """Write to `path` (`.npz`); it appears by an atomic rename."""
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        with part.open("wb") as file:
            images: dict[str, Any] = {f"images.{camera}": frames for camera, frames in self.images.items()}
            np.savez(file, states=self.states, actions=self.actions, text=self.text, **images)
        os.replace(part, path)

    @classmethod
    def load(cls, path: Path) -> Episode:
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            images = {key.removeprefix("images."): arrays[key] for key in arrays if key.startswith("images.")}
            return cls(images, arrays["states"], arrays["actions"], str(arrays["text"]))


class _Tape:
    """Collects observations and labels while it drives the world."""

    def __init__(self, world: Tabletop, recipe: Recipe, rng: np.random.Generator) -> None:
        self.world, self.recipe, self.rng = world, recipe, rng
        self.images: dict[str, list[np.ndarray]] = {camera: [] for camera in recipe.cameras}
        self.states: list[np.ndarray] = []
        self.actions: list[np.ndarray] = []

    def step(self, action: np.ndarray, noise: float) -> None:
        for camera, frames in self.images.items():
            frames.append(self.world.image(self.recipe.image_size, camera))
        self.states.append(self.world.joints)
        scene = self.world.scene
        self.actions.append(np.clip(action, scene.joint_low, scene.joint_high))
        noise *= self.world.arm.tremble
        self.world.step(action + self.rng.normal(0.0, 1.0, len(action)) * noise)

    def finish(self, text: str) -> Episode:
        images = {camera: np.stack(frames) for camera, frames in self.images.items()}
        return Episode(images, np.stack(self.states, dtype=np.float32), np.stack(self.actions, dtype=np.float32), text)


def _scatter(world: Tabletop, rng: np.random.Generator) -> None:
    """Put the tip at a random point, near a cube or over the table; stay at home where that would move a cube."""
    home, cubes = world.joints, world.cubes
    low, high = np.array(WORK_AREA).T
    if rng.random() < 0.5:
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.03, 0.08)
        xy = cubes[rng.integers(len(cubes)), :2] + distance * np.array([np.cos(angle), np.sin(angle)])
    else:
        xy = rng.uniform(low, high)
    target = np.array([*xy, rng.uniform(PUSH_HEIGHT, 2 * TRAVEL_HEIGHT)])
    joints, kinematics = home, InverseKinematics(world.scene)
    for _ in range(4):
        joints = kinematics.solve(joints, target)
    before = world.data.qpos.copy()
    world.place_arm(joints)
    if np.abs(world.cubes - cubes).max() > 0.002:
        world.data.qpos[:] = before
        world.place_arm(home)


def _stumble(world: Tabletop, task: Task, rng: np.random.Generator) -> None:
    """Attempt `task` for a moment with a trembling hand."""
    judge, expert = Judge(task, world.cubes, world.tip, world.cube_half, world.plates), TaskExpert(world)
    for _ in range(int(rng.integers(*_CLUMSY_STEPS, endpoint=True) * world.pace)):
        action = expert.action(judge)
        world.step(action + rng.normal(0.0, _CLUMSY_NOISE * world.arm.tremble, len(action)))


def _try_task(world: Tabletop, recipe: Recipe, task: Task, look: Look, rng: np.random.Generator) -> Episode | None:
    """Return one expert episode of `task`, or None where strict success was missed."""
    placement = place_cubes(rng, task, look.cube_half)
    world.reset(placement.xy, placement.yaw, look, placement.plates)
    start = rng.random()
    if start < recipe.scattered_starts:
        _scatter(world, rng)
    elif start < recipe.scattered_starts + recipe.clumsy_starts:
        _stumble(world, task, rng)
    judge = Judge(task, world.cubes, world.tip, world.cube_half, world.plates)
    expert, tape = TaskExpert(world), _Tape(world, recipe, rng)
    for _ in range(int(50 * (1 + task.grasps) * len(task.stages) * world.pace)):
        tape.step(expert.action(judge), recipe.noise)
        judge.update(world.cubes, world.tip)
        if judge.failed or judge.success:
            break
    if not judge.success:
        return None
    for _ in range(int(recipe.follow_through * world.pace)):
        tape.step(expert.action(judge), recipe.noise)
        judge.update(world.cubes, world.tip)
    rest = world.joints
    for _ in range(int(recipe.hold_steps * world.pace)):
        tape.step(rest, 0.0)
        judge.update(world.cubes, world.tip)
    return tape.finish(task.instruction) if judge.success else None


def _play(world: Tabletop, recipe: Recipe, look: Look, rng: np.random.Generator, named: bool) -> Episode:
    """Return one play episode; a named one ends when a cube was pushed in a direction that has a word."""
    placement = place_cubes(rng, None, look.cube_half)
    world.reset(placement.xy, placement.yaw, look)
    expert, tape = PlayExpert(world, rng), _Tape(world, recipe, rng)
    judges = [Judge(task, world.cubes, world.tip, world.cube_half) for task in select_tasks("single")] if named else []
    for _ in range(int(rng.integers(*recipe.play_steps, endpoint=True) * world.pace)):
        tape.step(expert.action(), recipe.noise)
        for judge in judges:
            judge.update(world.cubes, world.tip)
        if pushed := [j.task for j in judges if j.success and j.task.stages[0].verb != "touch"]:
            for _ in range(int(recipe.follow_through * world.pace)):
                tape.step(expert.action(), recipe.noise)
            return tape.finish(pushed[0].instruction)
    touched = [judge.task for judge in judges if judge.success]
    return tape.finish(touched[0].instruction if touched else recipe.play_text)


def make_episode(recipe: Recipe, index: int, world: Tabletop | None = None) -> tuple[Episode, int]:
    """Simulate episode `index`; the same arguments give the same bytes on the same machine.

    Args:
        recipe: what to record.
        index: which episode, from 0.
        world: a world of the recipe's arm and rate to run in; made if absent.

    Returns:
        the episode and the number of attempts it took (only strict successes are kept).

    Raises:
        RuntimeError: the expert missed 50 times in a row.
    """
    world = world or Tabletop(recipe.arm, recipe.fps)
    shares = recipe.shares()
    round_number, place = divmod(index, len(shares))
    kind = shares[place]
    look = draw_look(recipe.looks, (_LOOK_STREAM, recipe.seed, index))
    if kind in (PLAY, NAMED_PLAY):
        rng = np.random.default_rng([_RECORDING_STREAM, recipe.seed, index, 0])
        return _play(world, recipe, look, rng, named=kind == NAMED_PLAY), 1
    tasks = select_tasks(kind)
    turn = round_number * shares.count(kind) + shares[:place].count(kind)
    task = tasks[turn % len(tasks)]
    for attempt in range(_MAX_ATTEMPTS):
        rng = np.random.default_rng([_RECORDING_STREAM, recipe.seed, index, attempt])
        episode = _try_task(world, recipe, task, look, rng)
        if episode is not None:
            return episode, attempt + 1
    raise RuntimeError(
        f"the {recipe.arm} expert missed {task.name!r} {_MAX_ATTEMPTS} times at noise {recipe.noise} rad; lower it"
    )
