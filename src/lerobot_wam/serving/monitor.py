"""What people see of the served robots: newest pictures and chunks, short histories, counts. It never says a secret.

The server tells a `Monitor` from its event loop and from its model thread; viewers read it. Every call stores
references under one lock, so that the robots pay nothing for it; pictures are encoded by those who look.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

CHUNKS = 120
"""Chunks of each robot whose surprise and latency are kept."""
STEPS = 48
"""Executed actions of each robot that are kept."""
ROBOTS = 64
"""Robots that are kept; beyond them the one that was silent longest goes."""
IDLE_S = 5.0
"""Silence [s] after which a robot is idle."""
FORGET_S = 60.0
"""Time [s] that a robot stays listed once it has left."""

State = Literal["driving", "idle", "evicted", "left"]
_BY_INTEREST: tuple[State, ...] = ("driving", "idle", "evicted", "left")


@dataclass(frozen=True)
class PlanRecord:
    """One chunk, as people look at it.

    Attributes:
        actions: Absolute physical actions [T, A].
        names: Names of the A action dimensions.
        execute: How many of the T actions are executed.
        robot: Name of the embodiment.
        task: Instruction, as the client wrote it.
        surprise: Newest surprise in units of the calibrated threshold; None where unknown.
        queue_ms: Time that the request waited [ms].
        compute_ms: Time that the chunk took to compute [ms].
        starts_window: Whether the chunk was planned from the newest frame alone.
        clips: Action dimension to how many of its T values are outside of the robot's limits.
    """

    actions: np.ndarray
    names: Sequence[str]
    execute: int
    robot: str
    task: str
    surprise: float | None = None
    queue_ms: float = 0.0
    compute_ms: float = 0.0
    starts_window: bool = False
    clips: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Viewer:
    """Somebody who looks.

    Attributes:
        chosen: The robot that they asked to see large; None leaves the choice to the monitor.
        shown: The robot that they see large.
    """

    chosen: str | None = None
    shown: str | None = None


@dataclass
class _Robot:
    """What is kept of one robot; `steps` counts its observations since the newest plan."""

    heard: float
    picture: np.ndarray | None = None
    frames: int = 0
    plan: PlanRecord | None = None
    dream: np.ndarray | None = None
    plans: int = 0
    steps: int = 0
    executed: deque[np.ndarray] = field(default_factory=lambda: deque(maxlen=STEPS))
    chunks: deque[PlanRecord] = field(default_factory=lambda: deque(maxlen=CHUNKS))
    clips: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    evicted: bool = False
    left: bool = False


class Monitor:
    """Knows what the live page shows. Safe to call from several threads.

    Args:
        title: What is served, such as the checkpoint's name.
        approximations: What the served policy does not do exactly.
        clock: Seconds that never go back.
    """

    def __init__(
        self, title: str = "", approximations: Sequence[str] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._about = {"title": title, "approximations": list(approximations)}
        self._clock = clock
        self._lock = threading.Lock()
        self._robots: dict[str, _Robot] = {}
        self._errors: dict[str, tuple[int, float]] = {}
        self._viewers: list[Viewer] = []

    @property
    def watched(self) -> bool:
        """Whether somebody looks."""
        return bool(self._viewers)

    @property
    def viewers(self) -> int:
        """How many look."""
        return len(self._viewers)

    def watches(self, name: str) -> bool:
        """Whether somebody sees this robot large, and so its dream."""
        with self._lock:
            return any(viewer.shown == name for viewer in self._viewers)

    def observed(self, name: str, picture: np.ndarray | None = None) -> None:
        """A robot was heard; what it showed [H, W, 3] uint8, where anybody looks, is not written to afterwards."""
        with self._lock:
            robot = self._heard(name)
            robot.picture = picture
            robot.frames += 1
            robot.steps += 1

    def planned(self, name: str, record: PlanRecord) -> None:
        """A chunk was computed for a robot."""
        with self._lock:
            robot = self._heard(name)
            if robot.plan is not None:
                robot.executed.extend(robot.plan.actions[: min(robot.steps, robot.plan.execute)])
            # Those who look see the last dream's end until the new one is decoded.
            end, looked_at = _dreamed_now(robot), any(viewer.shown == name for viewer in self._viewers)
            robot.dream = end[None] if end is not None and looked_at else None
            robot.plan, robot.steps, robot.evicted = record, 0, False
            robot.plans += 1
            robot.chunks.append(record)
            robot.clips.update(record.clips)

    def dreamed(self, name: str, record: PlanRecord, frames: np.ndarray) -> None:
        """A chunk's imagined frames [F, H, W, 3] uint8, which span the time of its actions, were decoded."""
        with self._lock:
            if name in self._robots and self._robots[name].plan is record:  # else there is a newer chunk by now
                self._robots[name].dream = frames

    def evicted(self, name: str) -> None:
        """The memory of a robot's window was given to others."""
        with self._lock:
            if name in self._robots:
                self._robots[name].evicted = True

    def closed(self, name: str) -> None:
        """A robot's connection ended."""
        with self._lock:
            if name in self._robots:
                robot = self._heard(name)
                robot.left, robot.picture, robot.dream = True, None, None

    def failed(self, name: str, code: str) -> None:
        """A request was answered by an error; the name may be of nobody who was let in."""
        with self._lock:
            self._errors[code] = (self._errors.get(code, (0, 0.0))[0] + 1, self._clock())
            if name in self._robots:
                self._robots[name].errors[code] += 1

    @contextmanager
    def viewing(self) -> Iterator[Viewer]:
        """Look, for as long as the context lasts."""
        viewer = Viewer()
        with self._lock:
            self._viewers.append(viewer)
        try:
            yield viewer
        finally:
            with self._lock:
                self._viewers = [other for other in self._viewers if other is not viewer]

    def news(self, viewer: Viewer) -> dict[str, Any]:
        """Everything but the pictures, as JSON values; says, too, which robot the viewer sees large from now on."""
        with self._lock:
            now = self._clock()
            for name in [n for n, robot in self._robots.items() if robot.left and now - robot.heard > FORGET_S]:
                del self._robots[name]
            viewer.shown = self._shown(viewer, now)
            robots = [self._summary(name, robot, now) for name, robot in self._robots.items()]
            errors = [{"code": c, "count": n, "ago_s": round(now - t)} for c, (n, t) in self._errors.items()]
            shown = None if viewer.shown is None else self._detail(self._robots[viewer.shown])
            return self._about | {"robots": robots, "shown": viewer.shown, "detail": shown, "errors": errors}

    def pictures(self, name: str) -> tuple[int, np.ndarray | None, np.ndarray | None]:
        """The number of a robot's newest picture, the picture, and what was dreamed of the same moment [H, W, 3]."""
        with self._lock:
            if (robot := self._robots.get(name)) is None:
                return 0, None, None
            return robot.frames, robot.picture, _dreamed_now(robot)

    def _heard(self, name: str) -> _Robot:
        robot = self._robots.setdefault(name, _Robot(0.0))
        robot.heard, robot.left = self._clock(), False
        if len(self._robots) > ROBOTS:
            del self._robots[min(self._robots, key=lambda other: self._robots[other].heard)]
        return robot

    def _state(self, robot: _Robot, now: float) -> State:
        if robot.left:
            return "left"
        if robot.evicted:
            return "evicted"
        return "idle" if now - robot.heard > IDLE_S else "driving"

    def _shown(self, viewer: Viewer, now: float) -> str | None:
        """What was chosen as long as it is known, else one robot until it leaves: a wall has nobody who clicks."""
        if viewer.chosen in self._robots:
            return viewer.chosen
        if viewer.shown in self._robots and not self._robots[viewer.shown].left:
            return viewer.shown
        return min(self._robots, key=lambda n: _BY_INTEREST.index(self._state(self._robots[n], now)), default=None)

    def _summary(self, name: str, robot: _Robot, now: float) -> dict[str, Any]:
        plan = robot.plan
        return {
            "name": name,
            "robot": "" if plan is None else plan.robot,
            "task": "" if plan is None else plan.task,
            "state": self._state(robot, now),
            "silent_s": round(now - robot.heard, 1),
            "plans": robot.plans,
            "frames": robot.frames,
            "surprise": None if plan is None else _number(plan.surprise),
            "clips": robot.clips.total(),
            "errors": robot.errors.total(),
        }

    def _detail(self, robot: _Robot) -> dict[str, Any]:
        plan = robot.plan
        return {
            "names": [] if plan is None else list(plan.names),
            "executed": _numbers(np.array(robot.executed)),
            "actions": [] if plan is None else _numbers(plan.actions),
            "execute": 0 if plan is None else plan.execute,
            "step": robot.steps,
            "surprise": [_number(chunk.surprise) for chunk in robot.chunks],
            "queue_ms": [_number(chunk.queue_ms) for chunk in robot.chunks],
            "compute_ms": [_number(chunk.compute_ms) for chunk in robot.chunks],
            "starts_window": [chunk.starts_window for chunk in robot.chunks],
            "latency": _percentiles([chunk.queue_ms + chunk.compute_ms for chunk in robot.chunks]),
            "clips": dict(robot.clips),
            "errors": dict(robot.errors),
        }


def _dreamed_now(robot: _Robot) -> np.ndarray | None:
    """What was dreamed of this moment [H, W, 3]: frame k of F shows the moment after (k + 1) * T / F actions."""
    if robot.plan is None or robot.dream is None:
        return None
    frame = -(-robot.steps * len(robot.dream) // len(robot.plan.actions)) - 1
    return robot.dream[min(max(frame, 0), len(robot.dream) - 1)]


def _number(value: float | None) -> float | None:
    """A number of few digits; None for what JSON cannot say."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.4g}")


def _numbers(rows: np.ndarray) -> list[list[float | None]]:
    return [[_number(value) for value in row] for row in rows.tolist()]


def _percentiles(latency: Sequence[float]) -> dict[str, float | None]:
    if not latency:
        return {"p50": None, "p95": None}
    p50, p95 = np.percentile(latency, [50, 95])
    return {"p50": _number(p50), "p95": _number(p95)}
