"""The tasks of Meta-World that its own experts do at our control rate, in words, and which of them are held out.

Loads no simulator.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources

CONTRASTS: tuple[tuple[str, str], ...] = (
    ("drawer-open-v3", "drawer-close-v3"),
    ("door-close-v3", "door-open-v3"),
    ("window-open-v3", "window-close-v3"),
    ("door-unlock-v3", "door-lock-v3"),
    ("faucet-close-v3", "faucet-open-v3"),
    ("button-press-v3", "button-press-topdown-v3"),
    ("button-press-topdown-wall-v3", "button-press-wall-v3"),
    ("plate-slide-v3", "plate-slide-side-v3"),
    ("plate-slide-back-side-v3", "plate-slide-back-v3"),
    ("handle-press-v3", "handle-press-side-v3"),
)
"""Tasks that differ in a word or two, the seen one first: open and close, clockwise and counter-clockwise, from the
top, past a wall, sideways, into and out of. The split is crossed: every word of an unseen task is heard in a seen one,
and every object is in one. `mirror_seen` and `mirror_unseen` swap the sides, where only "unlock" is new."""
_OTHERS = (
    "assembly-v3",
    "coffee-button-v3",
    "coffee-pull-v3",
    "coffee-push-v3",
    "dial-turn-v3",
    "hand-insert-v3",
    "pick-out-of-hole-v3",
    "pick-place-v3",
    "pick-place-wall-v3",
    "push-v3",
    "push-wall-v3",
    "reach-v3",
    "reach-wall-v3",
    "soccer-v3",
    "stick-push-v3",
    "sweep-v3",
)
_MARKED = {
    "coffee-pull-v3",
    "pick-out-of-hole-v3",
    "pick-place-v3",
    "pick-place-wall-v3",
    "push-v3",
    "push-wall-v3",
    "reach-v3",
    "reach-wall-v3",
    "stick-push-v3",
}


@dataclass(frozen=True)
class Task:
    """One task of Meta-World.

    Attributes:
        name: Meta-World's name, such as `drawer-open-v3`.
    """

    name: str

    @property
    def instruction(self) -> str:
        """The task in LeRobot's words, such as "Open a drawer"; no two tasks here share theirs."""
        return _descriptions()[self.name]

    @property
    def marked(self) -> bool:
        """Whether the goal is a place in the air or on the table that nothing but a marker shows."""
        return self.name in _MARKED


@functools.cache
def _descriptions() -> dict[str, str]:
    file = resources.files("lerobot") / "envs" / "metaworld_config.json"
    return json.loads(file.read_text())["TASK_DESCRIPTIONS"]


def _groups() -> dict[str, tuple[Task, ...]]:
    first, second = ({names[side] for names in CONTRASTS} for side in (0, 1))
    everything = tuple(Task(name) for name in sorted({*first, *second, *_OTHERS}))
    return {
        "all": everything,
        "seen": tuple(task for task in everything if task.name not in second),
        "unseen": tuple(task for task in everything if task.name in second),
        "mirror_seen": tuple(task for task in everything if task.name not in first),
        "mirror_unseen": tuple(task for task in everything if task.name in first),
    }


GROUPS: dict[str, tuple[Task, ...]] = _groups()
"""36 tasks, and two ways to hold 10 of them out."""


def select_tasks(text: str) -> tuple[Task, ...]:
    """Return the tasks that a `task` option names, in the order in which seeds cycle through them.

    Args:
        text: a key of `GROUPS`, or a comma-separated list of these and of names such as `drawer-open-v3`.

    Raises:
        ValueError: there is no such task here.
    """
    known = {task.name: (task,) for task in GROUPS["all"]} | GROUPS
    chosen: list[Task] = []
    for part in (part.strip() for part in text.split(",")):
        if part not in known:
            raise ValueError(f"task {part!r} is unknown; expected {', '.join(GROUPS)} or one of {', '.join(known)}")
        chosen.extend(known[part])
    return tuple(chosen)
