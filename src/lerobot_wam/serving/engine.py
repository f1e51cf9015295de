"""The model's own thread: whatever robots wait for, computed together.

The engine lives on the server's event loop. What a robot sends goes into its seat's inbox; a round takes what waits and
hands it to the one thread that runs the model, so nothing of a session needs a lock. Plans come first: all robots that
wait for a chunk are one batch, and of several requests of one robot the newest wins. In between, frames that have
arrived are encoded, so that little is left to do when the next chunk is due.
"""

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from lerobot_wam.commitment import Commitment
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.runtime.session import Runtime
from lerobot_wam.runtime.state import Dream, Observation, Session
from lerobot_wam.runtime.store import SessionStore, forget_windows
from lerobot_wam.serving.metrics import Metrics
from lerobot_wam.serving.protocol import ProtocolError
from lerobot_wam.serving.settings import ServeSettings

logger = logging.getLogger(__name__)

_PATIENCE = 4
"""Chunks' worth of control steps that may wait for one robot; what is older is dropped."""


class Superseded(Exception):  # noqa: N818 (no error: nobody waits for this chunk any more)
    """A newer request, a new episode or the robot's leaving took the place of a plan request."""


@dataclass(frozen=True)
class Planned:
    """A chunk and how it came about.

    Attributes:
        dream: The chunk; its actions are finite.
        execute: How many of its actions to execute.
        surprise: How far reality was from the last chunk's dream, 1 at the calibrated quantile; None where unknown.
        queue_ms: Time that the request waited.
        compute_ms: Time that the model took, for the whole batch.
        robots: Chunks of that batch.
    """

    dream: Dream
    execute: int
    surprise: float | None
    queue_ms: float
    compute_ms: float
    robots: int


@dataclass(eq=False)
class _Arrival:
    """Something that a robot saw; with an `answer`, it wants a chunk."""

    observation: Observation
    after_gap: bool = False
    clip: Tensor | None = None
    commitment: Commitment | None = None
    answer: asyncio.Future[Planned] | None = None
    since: float = field(default_factory=time.perf_counter)

    @property
    def waits(self) -> bool:
        return self.answer is not None and not self.answer.done()

    def supersede(self) -> None:
        """What it wanted, nobody waits for any more; what was seen stays."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(Superseded())
        self.answer = None


@dataclass(eq=False)
class Seat:
    """One robot at the engine.

    Attributes:
        session: Its state in the closed loop. Only the model's thread changes it.
        inbox: What has arrived and not yet reached the session.
        on_dropped: Called when the rest of the robot's chunk is not to be executed: the policy is surprised and
            reacts, or the robot has another task.
    """

    session: Session
    inbox: deque[_Arrival] = field(default_factory=deque)
    on_dropped: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class _Turn:
    """What one round does for one robot: it sees what arrived; the last arrival may ask for a chunk."""

    seat: Seat
    session: Session
    arrivals: list[_Arrival]

    @property
    def last(self) -> _Arrival:
        return self.arrivals[-1]


class Engine:
    """Plans for any number of robots on one policy.

    Args:
        policy: Holds the weights; nobody else may use it meanwhile.
        settings: Bounds of batch and memory.
        metrics: Is told what happens.
    """

    def __init__(self, policy: WAMPolicy, settings: ServeSettings, metrics: Metrics) -> None:
        self.policy = policy
        self.runtime: Runtime = policy.runtime
        self.settings = settings
        self.metrics = metrics
        self._store = SessionStore(settings.memory_gb * 1e9)
        self._waiting: dict[Seat, None] = {}
        self._arrived = asyncio.Event()
        self._stopping = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve seats for as long as the context lasts; then the round in hand is finished, the rest given up."""
        self._rounds = asyncio.create_task(self._serve())
        try:
            yield
        finally:
            self._stopping = True
            self._arrived.set()
            await self._rounds
            for seat in list(self._waiting):
                self.leave(seat)
            await asyncio.to_thread(self._thread.shutdown)

    @property
    def alive(self) -> bool:
        """Whether rounds are done; if not, nobody will ever get a chunk."""
        return not self._rounds.done()

    def seat(self, category: int) -> Seat:
        """Take in a robot of this embodiment. Its noise is that of a robot near the GPU: the policy's seed."""
        return Seat(self.runtime.new_session(self.policy.config.seed, category))

    def restart(self, seat: Seat) -> None:
        """Begin an episode. What waits is dropped; what is being computed has nobody to go to."""
        self.leave(seat)
        seat.session = self.runtime.new_session(seat.session.generator.initial_seed(), seat.session.category)

    def leave(self, seat: Seat) -> None:
        """Drop what waits; the session stays as long as the seat."""
        for arrival in seat.inbox:
            arrival.supersede()
        seat.inbox.clear()
        self._waiting.pop(seat, None)

    def observe(self, seat: Seat, observation: Observation, after_gap: bool = False) -> None:
        """Take note of what a robot saw at one control step; after a gap, its window does not go on."""
        self._arrive(seat, _Arrival(observation, after_gap))

    def plan(
        self, seat: Seat, observation: Observation, after_gap: bool = False, commitment: Commitment | None = None
    ) -> asyncio.Future[Planned]:
        """Take note of what a robot sees at one control step, and compute its next chunk.

        Returns:
            The chunk, once awaited. It raises `Superseded` where nobody waits for it any more, and `ProtocolError` with
            code overloaded or internal; the robot then goes on with a new window.
        """
        return self._request(seat, _Arrival(observation, after_gap, commitment=commitment))

    def plan_frames(self, seat: Seat, clip: Tensor, state: Tensor, task: str) -> asyncio.Future[Planned]:
        """Likewise, from the frames [T, 3, H, W] in [-1, 1] seen since the last call: see `Runtime.plan_frames`."""
        return self._request(seat, _Arrival(Observation(clip[-1], state, task), clip=clip))

    async def imagine(self, dream: Dream) -> Tensor:
        """Decode a dream to pixels in [-1, 1], [T, 3, H, W].

        Raises:
            Superseded: The engine ends.
        """
        if self._stopping:
            raise Superseded
        return await self._in_thread(partial(self.runtime.imagine, dream))

    async def warm_up(self, category: int) -> None:
        """Let a robot that sees black act for a whole window, so that what is loaded or compiled late is there."""
        spec, config = self.policy.action_spaces[category].spec, self.policy.config
        (rows, columns), (height, width) = spec.grid, config.image_size
        black = -torch.ones(3, *(config.head_resize or (rows * height, columns * width)))
        seen = Observation(black, torch.zeros(len(spec.state)), spec.render_prompt("wait"))
        session = self.runtime.new_session(config.seed, category)

        @torch.no_grad()
        def act() -> None:
            for _ in range(self.runtime.model.config.max_chunks * self.runtime.execute_steps):
                self.runtime.act([session], [seen])
            self.policy.codecs.rest()

        await self._in_thread(act)

    def _arrive(self, seat: Seat, arrival: _Arrival) -> None:
        if self._stopping:
            arrival.supersede()
            return
        if len(seat.inbox) >= _PATIENCE * self.runtime.chunk_steps:
            seat.inbox.popleft().supersede()
            seat.inbox[0].after_gap = True
        seat.inbox.append(arrival)
        self._waiting[seat] = None
        self._arrived.set()

    def _request(self, seat: Seat, arrival: _Arrival) -> asyncio.Future[Planned]:
        arrival.answer = answer = asyncio.get_running_loop().create_future()
        self._arrive(seat, arrival)
        return answer

    async def _serve(self) -> None:
        while not self._stopping:
            if turns := self._next_round():
                await self._round(turns)
            else:
                self._arrived.clear()
                await self._arrived.wait()

    def _next_round(self) -> list[_Turn]:
        """Take out of the inboxes what is to be done next: plans if any wait, else what was seen."""
        requests: dict[Seat, int] = {}
        for seat in self._waiting:
            if places := [place for place, arrival in enumerate(seat.inbox) if arrival.waits]:
                requests[seat] = places[-1]
        if requests:
            return [self._take(seat, 1 + place) for seat, place in list(requests.items())[: self.settings.max_batch]]
        return [self._take(seat, len(seat.inbox)) for seat in list(self._waiting)]

    def _take(self, seat: Seat, count: int) -> _Turn:
        arrivals = [seat.inbox.popleft() for _ in range(count)]
        del self._waiting[seat]
        if seat.inbox:
            self._waiting[seat] = None  # behind the others
        for older in arrivals[:-1]:
            self.metrics.superseded.inc(older.waits)
            older.supersede()
        return _Turn(seat, seat.session, arrivals)

    async def _round(self, turns: list[_Turn]) -> None:
        """Do a round in the model's thread and give out what came of it. A failure goes no further than its robots."""
        began = time.perf_counter()
        acting = [bool(turn.session.queue) for turn in turns]
        outcomes = await self._outcomes(turns)
        took, asked = time.perf_counter() - began, False
        for turn, outcome, acted in zip(turns, outcomes, acting, strict=True):
            answer, session = turn.last.answer, turn.session
            asked |= answer is not None
            if answer is None and acted and not session.queue:
                turn.seat.on_dropped()
            if answer is None or answer.done() or outcome is None:
                continue
            if isinstance(outcome, ProtocolError):
                answer.set_exception(outcome)
                continue
            waited, surprise = began - turn.last.since, session.surprise
            self.metrics.queue_seconds.observe(waited)
            answer.set_result(Planned(outcome, len(session.queue), surprise, 1e3 * waited, 1e3 * took, len(turns)))
        if asked:
            self.metrics.plan_seconds.observe(took)
            self.metrics.batch.observe(len(turns))

    async def _outcomes(self, turns: list[_Turn]) -> list[Dream | ProtocolError | None]:
        try:
            return await self._in_thread(partial(self._advance, turns))
        except Exception as error:  # the outermost edge of what robots sent: whatever it is, the server outlives it
            logger.exception("a round of %d robots failed", len(turns))
            full = isinstance(error, torch.OutOfMemoryError)
        await self._in_thread(partial(forget_windows, [turn.session for turn in turns]))
        if len(turns) > 1:  # the others shall not suffer for the one that failed, and one may fit where all did not
            alone = [replace(turn, arrivals=turn.arrivals[-1:]) for turn in turns]
            return [outcome for turn in alone for outcome in await self._outcomes([turn])]
        if full:
            return [ProtocolError("overloaded", "the accelerator's memory is full: try again, or serve fewer robots")]
        return [ProtocolError("internal", "no chunk could be computed: see the server's log")]

    @torch.no_grad()
    def _advance(self, turns: list[_Turn]) -> list[Dream | ProtocolError | None]:
        """In the model's thread: let sessions see what arrived, and plan for those that ask."""
        runtime = self.runtime
        for turn in turns:
            for arrival in turn.arrivals:
                self._see(turn.session, arrival)
        dreams: dict[Session, Dream] = {}
        for group in _alike(turn for turn in turns if turn.last.answer is not None):
            sessions, last = [turn.session for turn in group], [turn.last for turn in group]
            seen = [arrival.observation for arrival in last]
            if last[0].clip is not None:
                clips = [arrival.clip for arrival in last if arrival.clip is not None]
                made = runtime.plan_frames(sessions, clips, [o.state for o in seen], [o.task for o in seen])
            elif last[0].commitment is not None:
                made = runtime.plan(sessions, seen, commitments=[arrival.commitment for arrival in last])
            else:
                made = runtime.plan_observed(sessions, seen)
            dreams.update(zip(sessions, made, strict=True))
            for session in sessions:
                session.steps += 1
        if dreams:
            self.policy.codecs.rest()
            self.metrics.evictions.inc(self._store.use(list(dreams)))
            self.metrics.window_bytes.set(self._store.bytes)
        else:
            runtime.encode_ahead([turn.session for turn in turns])
        return [self._checked(turn.session, dreams.get(turn.session)) for turn in turns]

    def _see(self, session: Session, arrival: _Arrival) -> None:
        """Take note of an arrival. Where it is out of rhythm, the window does not go on: its block is not whole."""
        runtime = self.runtime
        if arrival.clip is not None:
            if arrival.answer is None:
                session.end_window()
            return
        if arrival.answer is not None and session.steps != runtime.chunk_steps:
            session.end_window()
        if arrival.after_gap:
            self._miss(session)
        runtime.observe(session, arrival.observation)
        if len(session.frames) > runtime.block_frames:
            self._miss(session)
        if arrival.answer is None:
            session.steps += 1

    def _miss(self, session: Session) -> None:
        """Forget a block that will not be whole, or is longer than one: what follows is no continuation of it."""
        session.end_window()
        session.begin_block([])

    def _checked(self, session: Session, dream: Dream | None) -> Dream | ProtocolError | None:
        if dream is None or bool(dream.actions.isfinite().all()):
            return dream
        forget_windows([session])
        logger.error("a chunk holds NaN or infinity: the weights are damaged, or their numbers overflow")
        return ProtocolError("internal", "the policy's actions are not finite; no chunk is sent")

    async def _in_thread[T](self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _alike(turns: Iterable[_Turn]) -> Iterable[list[_Turn]]:
    """Sort plan requests by how they are planned: from clips, with a commitment, from every frame observed."""
    groups: dict[tuple[bool, bool], list[_Turn]] = defaultdict(list)
    for turn in turns:
        groups[turn.last.clip is None, turn.last.commitment is None].append(turn)
    return groups.values()
