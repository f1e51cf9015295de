"""A state machine between policy and robot: actions pass, are clipped, or a fault replaces them by standing still."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from lerobot_wam.guard.contract import Contract
from lerobot_wam.guard.settings import GuardSettings

RAMP_SECONDS = 0.1
"""Time constant of a ramp: a joint goes on for as long as it would have gone in this time at its last speed."""


_WAY_OUT = "look at what the policy was shown and at its checkpoint; a reset lets it begin anew"


class GuardError(RuntimeError):
    """The guard lets nothing through any more: too many bad actions in a row, or nothing to hold."""


@dataclass(frozen=True)
class Fault:
    """Why actions were replaced.

    Attributes:
        kind: "shape", "not finite" or "late".
        step: Control steps that this guard had checked before.
        inputs: Hash of the observation that they were computed from.
        reason: What was found and what was expected, in words.
    """

    kind: Literal["shape", "not finite", "late"]
    step: int
    inputs: str
    reason: str

    def __str__(self) -> str:
        return f"step {self.step}, inputs {self.inputs}: {self.reason}"


@dataclass(frozen=True, eq=False)
class Checked:
    """What may be sent.

    Attributes:
        actions: Of the form that was asked about, [A] or [T, A].
        clipped: How often each joint's command was changed to fit its limits [A].
        fault: Why the actions were replaced altogether; None where they were not.
    """

    actions: np.ndarray
    clipped: np.ndarray
    fault: Fault | None


@dataclass(eq=False)
class Tally:
    """What a guard has seen and done since it was made.

    Attributes:
        robot: The embodiment's name.
        names: Of its A action dimensions.
        clipped: How often each one was changed to fit its limits [A].
        steps: Control steps checked.
        faults: How many checks failed, by kind of fault.
    """

    robot: str
    names: tuple[str, ...]
    clipped: np.ndarray
    steps: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    _told: int = 0

    def is_news(self) -> bool:
        """Whether anything was clipped or failed since this was last asked."""
        before, self._told = self._told, int(self.clipped.sum()) + self.faults.total()
        return self._told > before

    def __str__(self) -> str:
        done = [f"{name} clipped {n} times" for name, n in zip(self.names, self.clipped, strict=True) if n]
        done += [f"{kind}: {n} times" for kind, n in self.faults.items()]
        return f"guard of {self.robot}: {self.steps} control steps; {', '.join(done) or 'nothing changed'}"


class Guard:
    """Checks every action of one robot.

    Args:
        contract: What the robot may be told.
        settings: What to do where it is told something else.

    Attributes:
        tally: What was clipped and what failed.
        in_a_row: Checks that failed since the last that did not.
    """

    def __init__(self, contract: Contract, settings: GuardSettings) -> None:
        self.contract = contract
        self.settings = settings
        self.tally = Tally(contract.robot, contract.names, np.zeros(len(contract.names), dtype=np.int64))
        self.reset()

    def reset(self) -> None:
        """Forget the commands: a new episode begins, and the robot may have been moved."""
        # What was let through last [1 + T, A], behind the command before it.
        self._commands: np.ndarray | None = None
        self.in_a_row = 0
        self._bad_in_a_row = 0

    def check(
        self,
        actions: np.ndarray,
        state: np.ndarray | None = None,
        age_s: float | None = None,
        inputs: Callable[[], str] = lambda: "unknown",
        elapsed: int = 1,
        passed: int = 0,
    ) -> Checked:
        """Return what may be sent instead of `actions`, which is they themselves where nothing is wrong.

        Numbers within the limits come back unchanged to the last bit.

        Args:
            actions: Absolute physical commands of one control step [A], or of the T steps from the observation on
                [T, A].
            state: Observed physical state [S]: where the robot stands, as long as there is no command to go on from.
            age_s: Seconds that the actions are late, see `GuardSettings`; None where time means nothing.
            inputs: Names the observation; called on a fault.
            elapsed: Control steps since the first action of the last check.
            passed: With T steps: the first so many will be over when the chunk comes into use, and the last chunk's
                are executed in their place.

        Raises:
            GuardError: Too many faults in a row, or a fault before there is anything to hold.
        """
        chunk = actions[None] if actions.ndim == 1 else actions
        fault = self._fault(chunk, age_s, inputs)
        past = self._past(elapsed, passed, state)
        if fault is None:
            self.in_a_row = self._bad_in_a_row = 0
            sent = self._limited(chunk, past)
            clipped = (sent != chunk)[passed:].sum(axis=0)
        else:
            self._count(fault)
            if not np.isfinite(past).all():
                raise GuardError(f"{self._name}: {fault}; there is no command yet that could be held: {_WAY_OUT}")
            sent, clipped = self._stopping(len(chunk), past), np.zeros_like(self.tally.clipped)
        self._commands = np.concatenate([sent[:1] if self._commands is None else past[1:2], sent])
        self.tally.steps += len(sent)
        self.tally.clipped += clipped
        sent = sent.astype(actions.dtype)
        return Checked(sent[0] if actions.ndim == 1 else sent, clipped, fault)

    def _fault(self, chunk: np.ndarray, age_s: float | None, inputs: Callable[[], str]) -> Fault | None:
        names, limit = self.contract.names, self.settings.max_age_s
        step = self.tally.steps
        if chunk.ndim != 2 or chunk.shape[1] != len(names):
            reason = f"actions have the shape {chunk.shape}, expected [{len(names)}] or [T, {len(names)}]"
            return Fault("shape", step, inputs(), reason)
        bad = np.argwhere(~np.isfinite(chunk))
        if len(bad):
            at, joint = bad[0]
            return Fault("not finite", step, inputs(), f"action {names[joint]} is {chunk[at, joint]} {at} steps ahead")
        if age_s is not None and limit is not None and age_s > limit:
            reason = (
                f"the action comes {age_s:.1f} s late, at most {limit:g} s are allowed: compute faster "
                "(--policy.speed), or allow more with --policy.guard_max_age_s"
            )
            return Fault("late", step, inputs(), reason)
        return None

    def _count(self, fault: Fault) -> None:
        self.in_a_row += 1
        self._bad_in_a_row += fault.kind != "late"
        self.tally.faults[fault.kind] += 1
        if self._bad_in_a_row > self.settings.patience:
            raise GuardError(f"{self._name}: {self._bad_in_a_row} faults in a row, the last at {fault}: {_WAY_OUT}")

    @property
    def _name(self) -> str:
        return f"guard of {self.contract.robot}"

    def _past(self, elapsed: int, passed: int, state: np.ndarray | None) -> np.ndarray:
        """Return the commands [2 + passed, A] up to the one before the new ones; of the first two one is executed."""
        if self._commands is None:
            return np.tile(self.contract.standing(state), (2 + passed, 1))
        at = np.arange(elapsed - 1, elapsed + 1 + passed)
        return self._commands[at.clip(0, len(self._commands) - 1)]

    def _limited(self, chunk: np.ndarray, past: np.ndarray) -> np.ndarray:
        sent, step, last = self.contract.limited(chunk), self.contract.max_step, past[1]
        for row, old in zip(sent, past[2:], strict=False):
            row[:] = np.where(np.isfinite(step) & np.isfinite(old), old, row)
        for i, row in enumerate(sent):
            # fmin and fmax ignore a NaN, which here is a last command that nobody knows.
            last = sent[i] = self.contract.limited(np.fmax(np.fmin(row, last + step), last - step))
        return sent

    def _stopping(self, steps: int, past: np.ndarray) -> np.ndarray:
        """Return commands [steps, A] that come to rest after those of the past."""
        rest = self.contract.rest
        fading = math.exp(-1 / (RAMP_SECONDS * self.contract.fps)) if self.settings.on_fault == "ramp" else 0.0
        rows = list(past)
        while len(rows) < 2 + steps:
            before, last = rows[-2:]
            target = np.where(np.isnan(rest), last + (last - before) * fading, rest + (last - rest) * fading)
            rows.append(self.contract.limited(target))
        return np.stack(rows[2 : 2 + steps])
