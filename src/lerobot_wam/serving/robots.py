"""The native endpoint: robots that speak `protocol.py`, each with an episode, a sequence of frames and a session."""

import asyncio
import logging
import secrets
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from lerobot_wam.approximations import approximations
from lerobot_wam.batches import BatchReader
from lerobot_wam.guard.contract import Contract
from lerobot_wam.runtime.state import Observation
from lerobot_wam.serving.engine import Planned, Seat, Superseded
from lerobot_wam.serving.monitor import PlanRecord
from lerobot_wam.serving.observations import read_commitment, read_observation, read_pictures
from lerobot_wam.serving.protocol import VERSION, ProtocolError, pack, unpack
from lerobot_wam.serving.protocol import field as field_of

if TYPE_CHECKING:
    from lerobot_wam.serving.server import Server

logger = logging.getLogger(__name__)

IDLE, REFUSED = 4001, 4002
"""Codes with which the server closes a websocket."""
_LONGEST_ERROR = 500
"""Characters: what a client sent may be in it."""
_BURST = 2.0
"""Seconds of the message rate that may come at once."""


@dataclass
class Allowance:
    """A token bucket: `rate` messages a second in the long run.

    Attributes:
        rate: Messages per second.
        left: Messages that may come now.
        told: When the client was last told that it sends too much.
    """

    rate: float
    left: float = field(init=False)
    told: float = -1.0
    _then: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.left = _BURST * self.rate

    def take(self) -> bool:
        """Use up one message; False where none is left."""
        now = time.monotonic()
        self.left = min(_BURST * self.rate, self.left + self.rate * (now - self._then))
        self._then = now
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def may_tell(self) -> bool:
        """Whether to tell the client: once a second, or its flood would be answered by another."""
        now = time.monotonic()
        if now - self.told < 1:
            return False
        self.told = now
        return True


@dataclass(eq=False)
class Robot:
    """What the server keeps of one robot, connected or not.

    Attributes:
        secret: Proves that a connection is the same robot's. Never logged or shown.
        label: Its public name.
        category: Index of its embodiment.
        reader: Makes observations of its pictures.
        seat: Its place at the engine.
        connection: Where it is connected now.
        epoch: Its episode.
        sequence: Newest control step seen in it; -1 before the first.
        gap: Whether the next frame does not follow the last one.
        sizes: Heights and widths of its pictures, which do not change within an episode.
        answers: Chunks that are on their way.
        expiry: Ends the session of a robot that does not come back.
    """

    secret: str
    label: str
    category: int
    reader: BatchReader
    seat: Seat
    connection: ServerConnection | None = None
    epoch: int = 0
    sequence: int = -1
    gap: bool = False
    sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    answers: set[asyncio.Task[None]] = field(default_factory=set)
    expiry: asyncio.TimerHandle | None = None


class Robots:
    """Serves robots for as long as a server runs.

    Args:
        server: Its engine, settings, metrics and monitor.
    """

    def __init__(self, server: "Server") -> None:
        self.server = server
        self._robots: dict[str, Robot] = {}
        sessions = server.metrics.sessions
        sessions.labels("connected").set_function(lambda: sum(r.connection is not None for r in self._robots.values()))
        sessions.labels("waiting").set_function(lambda: sum(r.connection is None for r in self._robots.values()))

    async def serve(self, connection: ServerConnection) -> None:
        """Serve one connection from `hello` to its end."""
        settings, robot = self.server.settings, None
        try:
            async with asyncio.timeout(settings.handshake_timeout):
                hello = unpack(await self._received(connection), settings.limits)
            robot, resumed = self._admitted(connection, hello)
            await self._send(connection, self._welcome(robot, resumed))
            await self._follow(robot, connection)
        except TimeoutError:
            silence = settings.handshake_timeout if robot is None else settings.idle_timeout
            await connection.close(IDLE, f"nothing heard for {silence:g} s")
        except ProtocolError as error:
            await self._tell(connection, error, robot, fatal=True)
            await connection.close(REFUSED, error.code)
        except ConnectionClosed as closed:
            if closed.sent is not None and closed.sent.code == CloseCode.MESSAGE_TOO_BIG:
                self._count("too_large", robot)
        finally:
            if robot is not None and robot.connection is connection:
                self._depart(robot)

    async def dismiss(self) -> None:
        """Say to every robot that the server goes, once what it waits for has been sent."""
        parting = ProtocolError("shutting_down", "the server shuts down: connect again later")
        for robot in list(self._robots.values()):
            if robot.answers:
                await asyncio.wait(robot.answers)
            if robot.connection is not None:
                with suppress(ConnectionClosed):
                    await self._tell(robot.connection, parting, robot, fatal=True)

    def _admitted(self, connection: ServerConnection, hello: dict[str, Any]) -> tuple[Robot, bool]:
        """Let a robot in, or back in; whether it is back.

        Raises:
            ProtocolError: It says something else than hello, speaks another version, is unknown, or there is no room.
        """
        if hello["type"] != "hello":
            raise ProtocolError("bad_message", f"the first message is {hello['type']!r:.40}, expected 'hello'")
        if (spoken := field_of(hello, "protocol", int)) != VERSION:
            raise ProtocolError("bad_message", f"protocol {spoken} is asked for, this server speaks {VERSION}")
        category = self.server.category_of(field_of(hello, "robot", str, default=""))
        robot = self._robots.get(field_of(hello, "session", str, default=""))
        resumed = robot is not None and robot.category == category
        if robot is None or not resumed:
            robot = self._newcomer(category)
        if robot.expiry is not None:
            robot.expiry.cancel()
        if robot.connection is not None:  # half open: its robot is here now
            robot.connection.transport.abort()
            self._part(robot)
        robot.connection = connection
        logger.info("robot %s (%s) is %s", robot.label, robot.reader.space.spec.name, "back" if resumed else "here")
        return robot, resumed

    def _newcomer(self, category: int) -> Robot:
        if len(self._robots) >= self.server.settings.max_sessions:
            gone = next((robot for robot in self._robots.values() if robot.connection is None), None)
            if gone is None:
                raise ProtocolError("overloaded", f"{len(self._robots)} robots are served, no more are let in")
            self._forget(gone)
        secret, label = secrets.token_urlsafe(32), secrets.token_hex(3)
        robot = Robot(secret, label, category, self.server.reader(category), self.server.engine.seat(category))
        robot.seat.on_dropped = partial(self._call_off, robot)
        self._robots[secret] = robot
        return robot

    def _welcome(self, robot: Robot, resumed: bool) -> dict[str, Any]:
        spec, config, runtime = robot.reader.space.spec, self.server.policy.config, self.server.engine.runtime
        trained = config.input_features or {}
        return {
            "type": "welcome",
            "protocol": VERSION,
            "session": robot.secret,
            "resumed": resumed,
            "epoch": robot.epoch,
            "sequence": robot.sequence,
            "embodiment": spec.to_dict(),
            "pictures": {c.key: list(trained[c.key].shape[1:]) for c in spec.cameras if c.key in trained},
            "chunk_steps": runtime.chunk_steps,
            "execute_steps": runtime.execute_steps,
            "approximations": approximations(config),
            "max_message_bytes": self.server.settings.limits.message_bytes,
            "version": version("lerobot_policy_wam"),
        }

    def _depart(self, robot: Robot) -> None:
        """Keep the session of a robot whose connection has ended for a while."""
        self._part(robot)
        # The next one that has to make room is the one that left first.
        self._robots[robot.secret] = self._robots.pop(robot.secret)
        loop = asyncio.get_running_loop()
        robot.expiry = loop.call_later(self.server.settings.session_timeout, self._forget, robot)
        logger.info("robot %s has left", robot.label)
        if self.server.monitor is not None:
            self.server.monitor.closed(robot.label)

    def _part(self, robot: Robot) -> None:
        """Cut a robot from its connection: nobody waits for its chunks, and what it sees next does not follow."""
        self.server.engine.leave(robot.seat)
        robot.connection, robot.gap = None, True

    def _forget(self, robot: Robot) -> None:
        if robot.expiry is not None:
            robot.expiry.cancel()
        self._robots.pop(robot.secret, None)

    async def _follow(self, robot: Robot, connection: ServerConnection) -> None:
        """Take what a robot sends, one message after the other, until its connection ends."""
        settings, allowance = self.server.settings, Allowance(self.server.settings.rate_limit)
        while robot.connection is connection:
            async with asyncio.timeout(settings.idle_timeout):
                data = await self._received(connection)
            message: dict[str, Any] = {}
            try:
                if not allowance.take():
                    raise ProtocolError("rate_limited", f"more than {settings.rate_limit:g} messages a second")
                message = unpack(data, settings.limits)
                await self._heed(robot, connection, message)
            except ProtocolError as error:
                if error.code != "rate_limited" or allowance.may_tell():
                    await self._tell(connection, error, robot, message)

    async def _heed(self, robot: Robot, connection: ServerConnection, message: dict[str, Any]) -> None:
        match message["type"]:
            case "reset":
                await self._reset(robot, connection, field_of(message, "epoch", int))
            case "observe":
                await self._observe(robot, connection, message)
            case other:
                raise ProtocolError("bad_message", f"message type {other!r:.40}, expected 'reset' or 'observe'")

    async def _reset(self, robot: Robot, connection: ServerConnection, epoch: int) -> None:
        if epoch < robot.epoch:
            raise ProtocolError("stale", f"epoch {epoch} is over, {robot.epoch} is on: epochs only grow")
        if epoch > robot.epoch:  # the same again is a repeated message
            self.server.engine.restart(robot.seat)
            robot.epoch, robot.sequence, robot.gap, robot.sizes = epoch, -1, False, {}
        await self._send(connection, {"type": "ready", "epoch": epoch})

    async def _observe(self, robot: Robot, connection: ServerConnection, message: dict[str, Any]) -> None:
        epoch, sequence = field_of(message, "epoch", int), field_of(message, "sequence", int)
        if epoch > robot.epoch:
            raise ProtocolError("stale", f"epoch {epoch} has not begun: send reset first (epoch {robot.epoch} is on)")
        if epoch < robot.epoch or sequence <= robot.sequence:
            return  # late, or there twice
        sent = field_of(message, "time", float)
        plan, task = field_of(message, "plan", bool), field_of(message, "task", str)
        images, state = field_of(message, "images", dict), message.get("state")
        observation, sizes, shown = await asyncio.to_thread(self._read, robot, images, state, task)
        if robot.connection is not connection:
            return  # the robot has come back elsewhere meanwhile
        commitment = read_commitment(
            message, robot.reader.space.spec.action_names, self.server.engine.runtime.chunk_steps
        )
        gap = robot.gap or (robot.sequence >= 0 and sequence != robot.sequence + 1)
        robot.sequence, robot.gap, robot.sizes = sequence, False, sizes
        self.server.metrics.frames.inc()
        if self.server.monitor is not None:
            self.server.monitor.observed(robot.label, shown)
        if not plan:
            self.server.engine.observe(robot.seat, observation, gap)
            return
        coming = self.server.engine.plan(robot.seat, observation, gap, commitment)
        origin = {"epoch": epoch, "sequence": sequence, "time": sent}
        _keep(robot, self._answer(robot, connection, coming, origin, task))

    def _read(
        self, robot: Robot, images: dict[str, Any], state: Any, task: str
    ) -> tuple[Observation, dict[str, tuple[int, ...]], NDArray[np.uint8] | None]:
        """Check and tile what was sent; with the pictures' sizes and, where there is a page, what people see there."""
        pictures = read_pictures(images, [camera.key for camera in robot.reader.space.spec.cameras])
        sizes = {key: picture.shape[:2] for key, picture in pictures.items()}
        if robot.sizes and sizes != robot.sizes:
            raise ProtocolError(
                "bad_observation",
                f"pictures are {_sizes(sizes)}, expected {_sizes(robot.sizes)} as at the episode's start: set the "
                "cameras back, or begin another episode",
            )
        observation = read_observation(robot.reader, pictures, state, task)
        watched = self.server.monitor is not None and self.server.monitor.watched
        return observation, sizes, _as_pictures(observation.frame) if watched else None

    async def _answer(
        self,
        robot: Robot,
        connection: ServerConnection,
        coming: asyncio.Future[Planned],
        origin: dict[str, Any],
        task: str,
    ) -> None:
        """Send a chunk once it is there, unless its episode is over or nobody waits for it any more."""
        with suppress(Superseded):
            try:
                planned = await coming
            except ProtocolError as error:
                return await self._tell(connection, error, robot, origin)
            if robot.epoch != origin["epoch"]:
                return
            timing = {"queue_ms": planned.queue_ms, "compute_ms": planned.compute_ms}
            chunk = {
                "actions": planned.dream.actions.numpy(),
                "execute": planned.execute,
                "starts_window": planned.dream.starts_window,
                "surprise": planned.surprise,
                "timing": timing,
            }
            await self._send(connection, {"type": "chunk", **origin, **chunk})
            self.server.metrics.plans.inc()
            if planned.surprise is not None:
                self.server.metrics.surprise.observe(planned.surprise)
            if self.server.monitor is not None:
                await self._show(robot, planned, task)

    def _call_off(self, robot: Robot) -> None:
        """Say that the rest of the chunk is not to be executed, and that another one is wanted."""
        news = {"epoch": robot.epoch, "sequence": robot.sequence, "surprise": robot.seat.session.surprise}
        if robot.connection is not None:
            _keep(robot, self._send(robot.connection, {"type": "replan", **news}))

    async def _show(self, robot: Robot, planned: Planned, task: str) -> None:
        """Let people see a chunk; its dream is decoded where somebody looks at it."""
        monitor, dream, spec = self.server.monitor, planned.dream, robot.reader.space.spec
        assert monitor is not None
        for other in self._robots.values():
            if other.seat.session.chunks and other.seat.session.branch is None:
                monitor.evicted(other.label)
        actions = dream.actions.numpy()
        outside = (Contract.of(spec).limited(actions) != actions).sum(axis=0)
        record = PlanRecord(
            actions=actions,
            names=spec.action_names,
            execute=planned.execute,
            robot=spec.name,
            task=task,
            surprise=planned.surprise,
            queue_ms=planned.queue_ms,
            compute_ms=planned.compute_ms,
            starts_window=dream.starts_window,
            clips={name: int(count) for name, count in zip(spec.action_names, outside, strict=True) if count},
        )
        monitor.planned(robot.label, record)
        if dream.latents is not None and monitor.watches(robot.label):
            monitor.dreamed(robot.label, record, _as_pictures(await self.server.engine.imagine(dream)))

    async def _received(self, connection: ServerConnection) -> bytes | str:
        data = await connection.recv()
        self.server.metrics.bytes.labels("in").inc(len(data))
        return data

    async def _send(self, connection: ServerConnection, message: dict[str, Any]) -> None:
        """Send a message; a client that does not read is cut off."""
        data = pack(message)
        try:
            async with asyncio.timeout(self.server.settings.send_timeout):
                await connection.send(data)
        except TimeoutError:
            logger.warning("a client does not read what it is sent: it is cut off")
            connection.transport.abort()
            return
        self.server.metrics.bytes.labels("out").inc(len(data))

    async def _tell(
        self,
        connection: ServerConnection,
        error: ProtocolError,
        robot: Robot | None,
        about: dict[str, Any] | None = None,
        fatal: bool = False,
    ) -> None:
        """Answer with an error; it names the episode and control step that it is about, where they are known."""
        self._count(error.code, robot)
        known = {name: v for name in ("epoch", "sequence") if type(v := (about or {}).get(name)) is int}
        message = {"type": "error", "code": error.code, "message": str(error)[:_LONGEST_ERROR], "fatal": fatal, **known}
        await self._send(connection, message)

    def _count(self, code: str, robot: Robot | None) -> None:
        label = "" if robot is None else robot.label
        logger.debug("robot %s: %s", label or "-", code)
        self.server.metrics.errors.labels(code).inc()
        if self.server.monitor is not None:
            self.server.monitor.failed(label, code)


def _keep(robot: Robot, answer: Coroutine[Any, Any, None]) -> None:
    """Let an answer be on its way; a connection that ends meanwhile ends it."""

    async def on_its_way() -> None:
        with suppress(ConnectionClosed):
            await answer

    task = asyncio.create_task(on_its_way())
    robot.answers.add(task)
    task.add_done_callback(robot.answers.discard)


def _sizes(sizes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{key} {height}x{width}" for key, (height, width) in sizes.items())


def _as_pictures(video: torch.Tensor) -> NDArray[np.uint8]:
    """Pixels [..., 3, H, W] in [-1, 1] as [..., H, W, 3] uint8."""
    return ((video + 1) * 127.5).round().to(torch.uint8).movedim(-3, -1).cpu().numpy()
