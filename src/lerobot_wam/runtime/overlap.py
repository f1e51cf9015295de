"""Acting while the next chunk is computed: the arm goes on with the old chunk and changes over a fixed time later."""

from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from lerobot_wam.runtime.session import Runtime
from lerobot_wam.runtime.state import Dream, Observation, Session, Stream
from lerobot_wam.runtime.stitching import Commitment, soft_mask, stitch

Join = Literal["switch", "blend", "guide"]


@dataclass(frozen=True)
class _Plan:
    """A chunk in the making: its window, its result, and what was left of the old chunk when it began [n, A]."""

    window: Session
    result: "Future[list[Dream]]"
    old: Tensor


class OverlappedLoop:
    """One robot's closed loop with the computation overlapped.

    A plan begins on the newest observation, which its chunk is anchored at, and is used exactly `delay` control steps
    later; `act` waits where it is not ready by then. So the actions depend on what was observed and on `delay`, never
    on how long something took: choose `delay` as the steps that a chunk takes at worst.

    A plan begins every half chunk, while a half is left to execute. Only whole observed blocks may enter a cache, and
    a block is as long as a chunk, so two windows take turns: each is planned from once per chunk, and remembers all
    blocks between its own plans. Where `delay` is longer than half a chunk plans follow one another at once, the
    frames since a window's last plan are not a block, and every window starts again on the newest frame.

    Args:
        runtime: The model, on one process: frames are observed while another thread plans. Its `restart_frame` rule is
            not used: windows begin on the newest frame.
        seed: Seed of the sampling noise.
        delay: Control steps from an observation to the first action that was planned on it.
        join: How chunks are joined: "switch" drops what has passed of the new one, "blend" fades into it, "guide"
            samples it so that it agrees with the old one (see `runtime.stitching`), and switches.
        worker: Computes the plans. One worker for all robots of a model: passes of one model do not overlap.
        category: Index of the robot's embodiment.

    Raises:
        ValueError: A negative delay, or another join.
    """

    def __init__(
        self, runtime: Runtime, seed: int, delay: int, join: Join, worker: Executor, category: int = 0
    ) -> None:
        if delay < 0:
            raise ValueError(f"delay is {delay} control steps; expected 0 or more.")
        if join not in get_args(Join):
            raise ValueError(f"join {join!r} is unknown; choose one of {', '.join(get_args(Join))}.")
        self.runtime, self.delay, self.join, self.worker = runtime, delay, join, worker
        self.queue: list[Tensor] = []
        session = runtime.new_session(seed, category)
        self._windows = [session, replace(session, frames=[], stream=Stream())]  # one stream of noise
        # In whole video frames, so that a window's frames keep their spacing up to the newest.
        stride = runtime.video_stride
        self.period = stride * max(runtime.chunk_steps // stride // 2, -(-delay // stride))
        self._age = self.period
        self._plan: _Plan | None = None

    def act(self, observation: Observation) -> Tensor | None:
        """Advance by one control step.

        Returns:
            The action [A] in physical units; None where there is none yet, and the robot keeps its last target.
        """
        if observation.task != self._windows[0].task:  # what was planned for another instruction is not done
            self.queue, self._plan, self._age = [], None, self.period
        for window in self._windows:
            self.runtime.observe(window, observation)
        if self._plan is not None and self._age == self.delay:
            self._change_over(self._plan)
        if self._plan is None and self._age >= self.period:
            self._plan = self._begin(observation)
            self._age = 0
            if self.delay == 0:
                self._change_over(self._plan)
        self._age += 1
        for window in self._windows:
            window.steps += 1
        return self.queue.pop(0) if self.queue else None

    def _begin(self, observation: Observation) -> _Plan:
        """Plan on a copy of the window whose turn it is, so that it can go on observing."""
        window = self._windows[0]
        draft = replace(window)
        window.begin_block([observation.frame])
        window.steps = 0
        old = torch.stack(self.queue) if self.queue else torch.empty(0, 0)
        guided = self.join == "guide" and len(old) > 0
        commitments = [Commitment(old, soft_mask(self.delay, len(old)))] if guided else None
        result = self.worker.submit(self.runtime.plan, [draft], [observation], commitments=commitments)
        return _Plan(draft, result, old)

    def _change_over(self, plan: _Plan) -> None:
        (dream,) = plan.result.result()
        self.queue = list(stitch(plan.old, dream.actions, self.delay, blend=self.join == "blend"))
        seen, other = self._windows
        plan.window.frames, plan.window.stream, plan.window.steps = seen.frames, seen.stream, seen.steps
        self._windows, self._plan = [other, plan.window], None
