"""A robot's side of `lerobot-wam serve`, for programs of one's own. Needs numpy, msgpack and websockets, no torch.

    with WAMClient("ws://gpu:8000", token=TOKEN) as client:
        client.reset()
        while True:
            send(client.act({"observation.images.front": picture}, joints, "push the red cube to the left"))

Every frame goes to the server, because the model goes on from what was seen between two chunks; a chunk is asked for
when the last one is used up. With `ahead`, it is asked for that many steps earlier and the robot never waits.
"""

import logging
import time
from collections import deque
from dataclasses import dataclass
from io import BytesIO
from types import TracebackType
from typing import Any

import numpy as np

from lerobot_wam.serving.link import PASSING, Link

logger = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Chunk:
    """What the server planned.

    Attributes:
        actions: Absolute physical actions [T, A], row 0 for the step that was observed.
        execute: How many of them to execute.
        sequence: The control step that it was planned from.
        observed_at: When that step was observed, by this process's `time.monotonic`.
        starts_window: Whether the model began a new window for it.
        surprise: How far reality was from the last chunk's dream, 1 at the calibrated quantile; None where unknown.
        timing: Milliseconds at the server, by stage.
    """

    actions: Array
    execute: int
    sequence: int
    observed_at: float
    starts_window: bool
    surprise: float | None
    timing: dict[str, float]

    @property
    def age_s(self) -> float:
        """Seconds since what it was planned from was observed."""
        return time.monotonic() - self.observed_at


class WAMClient:
    """One robot at a server. All methods belong to one thread, but for `reset`, which ends a wait in another.

    Args:
        url: ws://HOST:PORT or wss://HOST:PORT.
        token: What the server was told to ask for.
        robot: Name of the robot's embodiment or its LeRobot robot type; "" takes what the server serves.
        jpeg: Quality (1 to 95) to send pictures with, an approximation that needs pillow; None sends them as they are.
        ahead: Steps before the end of a chunk at which `act` asks for the next. The model then begins a new window
            with every chunk, because it is asked before it has seen the whole of the last one.
        commit: Whether a chunk that is asked for ahead is to agree with the actions that are executed meanwhile.
        timeout_s: How long to wait for a chunk before the connection counts as lost.
        max_outage_s: How long to hold the robot still before `act` gives up.
        ca_file: Certificate authority of the server's certificate, for wss; None takes the system's.

    Attributes:
        chunk: The chunk that is executed.
        due: When the last action would have left if nothing took any time, by `time.monotonic`: the time of the
            observation that it was planned from, plus its place in the chunk.
        held: Steps at which there was no action and the robot was told to stay where it is.
        outages: How often that began.
        refused: Observations between two chunks that the server did not take; the window does not go on over them.

    Raises:
        ConnectionError: Nobody answers, or somebody else.
        PermissionError: The token is not the server's.
        ValueError: A URL of another form, or a server that does not serve this robot.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        robot: str = "",
        jpeg: int | None = None,
        ahead: int = 0,
        commit: bool = False,
        timeout_s: float = 10.0,
        max_outage_s: float = 30.0,
        ca_file: str | None = None,
    ) -> None:
        if jpeg is not None and not 1 <= jpeg <= 95:
            raise ValueError(f"jpeg is {jpeg}, expected a quality from 1 to 95, or None for pictures as they are")
        self._link = Link(url, robot, token, timeout_s, ca_file)
        self._jpeg, self.ahead, self._commit = jpeg, ahead, commit
        self._timeout_s, self._max_outage_s = timeout_s, max_outage_s
        if not 0 <= ahead < self.welcome["execute_steps"]:
            raise ValueError(f"ahead is {ahead}, expected 0 to {self.welcome['execute_steps'] - 1} steps")
        self._greeted: dict[str, Any] = {}
        self._epoch, self._sequence = 0, -1
        self._asked: int | None = None
        self._queue: deque[Array] = deque()
        self._last: Array | None = None
        self._still_since: float | None = None
        self._trouble = self._task = ""
        self.chunk: Chunk | None = None
        self.due = 0.0
        self.held = self.outages = self.refused = 0

    def __enter__(self) -> "WAMClient":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def welcome(self) -> dict[str, Any]:
        """What the server says of itself: its `embodiment`, `chunk_steps`, `execute_steps`, `approximations`, ..."""
        return self._link.welcome

    @property
    def dropped(self) -> int:
        """Messages that were never sent: no connection, or a network that is too slow."""
        return self._link.dropped

    def close(self) -> None:
        """Say goodbye."""
        self._link.close()

    def reset(self) -> None:
        """Begin a new episode: nothing of the last one counts any more."""
        self._queue.clear()
        self._last = self.chunk = self._still_since = None
        self._begin_epoch()

    def act(self, images: dict[str, Array], state: Array, task: str) -> Array:
        """Advance by one control step and return the action for it.

        Without a connection the rest of the chunk is executed; then the robot holds still, at the last action or,
        before any, where it is, until the server is back.

        Args:
            images: The cameras' views by their feature's name, [H, W, 3] uint8.
            state: Physical proprioception [S].
            task: Instruction.

        Returns:
            Absolute physical action [A].

        Raises:
            ConnectionError: There was no action for `max_outage_s`, or the server will not have us back.
            ValueError: The server refuses what the robot sends; the message says why.
        """
        while self._asked is None and (message := self._link.receive(0.0)) is not None:
            self._read(message)
        if task != self._task:  # the rest of the chunk is for another one
            self._queue.clear()
            self._task = task
        if self._asked is None and len(self._queue) <= self.ahead:
            rest = {"actions": np.stack(self._queue), "delay": len(self._queue)} if self._queue else None
            self.request(images, state, task, rest if self._commit else None)
        else:
            self.observe(images, state, task)
        chunk = self.poll(0.0 if self._queue else self._timeout_s)
        if chunk is not None:
            passed = self._sequence - chunk.sequence
            self._queue, self.chunk = deque(chunk.actions[passed : chunk.execute]), chunk
        if not self._queue or self.chunk is None:
            return self._hold(state)
        self.due = self.chunk.observed_at + (self._sequence - self.chunk.sequence) / self.welcome["embodiment"]["fps"]
        self._last = self._queue.popleft()
        return self._last

    def replan(self) -> None:
        """Drop what is left of the chunk; the next `act` asks for another, from a new window."""
        self._queue.clear()
        self._sequence += 1  # a gap ends the window

    def plan(
        self, images: dict[str, Array], state: Array, task: str, commitment: dict[str, Any] | None = None
    ) -> Chunk:
        """Return a chunk from a window of its own, for loops that show no frames between two chunks; see `request`.

        Raises:
            ConnectionError: There is none. Where the server was away, it is back by now or `max_outage_s` are over; the
                observation is too old for it: call again with the next.
            ValueError: The server refuses what the robot sends; the message says why.
        """
        self._begin_epoch()
        self.request(images, state, task, commitment)
        self.chunk = self.poll(self._timeout_s)
        if self.chunk is None:
            self._link.wait_until_up(self._allowance())
            raise ConnectionError(f"no chunk from {self._link.url}: {self._trouble}")
        self.due = self.chunk.observed_at
        return self.chunk

    def observe(self, images: dict[str, Array], state: Array, task: str) -> int:
        """Show one control step; return its number."""
        return self._show(images, state, task, {"plan": False})

    def request(
        self, images: dict[str, Array], state: Array, task: str, commitment: dict[str, Any] | None = None
    ) -> int:
        """Show one control step and ask for a chunk that begins with it; return its number. A newer request wins.

        Args:
            images: See `act`, and the next two.
            state: Proprioception.
            task: Instruction.
            commitment: What the chunk is to agree with: `actions` [n, A], the old chunk's from this step on, and
                `delay`, how many of them will be executed whatever comes. `weights` [n] and `strength` say how much
                each counts and how strongly all are pulled; without them, the first `delay` are kept, the others fade.
        """
        self._asked = self._show(images, state, task, {"plan": True, "commitment": commitment})
        return self._asked

    def poll(self, timeout_s: float = 0.0) -> Chunk | None:
        """Return the chunk that was asked for last, if it comes in time.

        Returns None as well where it will not come: see `waiting`. What answers an older request or episode is dropped.

        Raises:
            ConnectionError: The server will not have us back.
            ValueError: The server refuses what it was asked.
        """
        deadline = time.monotonic() + timeout_s
        while self._asked is not None:
            message = self._link.receive(max(0.0, deadline - time.monotonic()))
            if self._link.welcome is not self._greeted or (message is None and not self._link.up):
                self._link.check()
                self._asked, self._trouble = None, "the connection was lost"
            elif message is not None:
                if (chunk := self._read(message)) is not None:
                    return chunk
            elif timeout_s > 0:
                self._link.drop()  # what comes this late was planned from a world long gone
                self._asked, self._trouble = None, f"no answer for {timeout_s:g} s"
            else:
                return None
        return None

    @property
    def waiting(self) -> bool:
        """Whether a chunk is asked for and may still come."""
        return self._asked is not None

    def _begin_epoch(self) -> None:
        self._greeted = self._link.welcome
        self._epoch += 1
        self._asked = None
        self._link.send({"type": "reset", "epoch": self._epoch})

    def _show(self, images: dict[str, Array], state: Array, task: str, more: dict[str, Any]) -> int:
        self._link.check()
        known = self._link.welcome
        if self._greeted is not known:  # a new connection; to go on, the server must remember us as we are
            if self._greeted and known["resumed"] and known["epoch"] == self._epoch:
                self._greeted, self._asked = known, None
            else:
                self._begin_epoch()
        self._sequence += 1
        self._link.send(
            {
                "type": "observe",
                "epoch": self._epoch,
                "sequence": self._sequence,
                "time": time.monotonic(),
                "images": {key: self._encoded(image) for key, image in images.items()},
                "state": np.asarray(state, np.float32),
                "task": task,
                **more,
            }
        )
        return self._sequence

    def _encoded(self, image: Array) -> Array | dict[str, bytes]:
        if self._jpeg is None:
            return image
        from PIL import Image

        buffer = BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=self._jpeg)
        return {"jpeg": buffer.getvalue()}

    def _read(self, message: dict[str, Any]) -> Chunk | None:
        """Return the chunk that is waited for, if the message is it."""
        kind, ours = message["type"], message.get("epoch") == self._epoch and message.get("sequence") == self._asked
        if kind == "chunk" and ours:
            actions, width = message["actions"], len(self.welcome["embodiment"]["action"])
            if actions.ndim != 2 or actions.shape[1] != width or not np.isfinite(actions).all():
                self._asked, self._trouble = None, f"a chunk is {list(actions.shape)}, expected [T, {width}], finite"
                return None
            if self._still_since is not None:
                logger.warning(f"actions again after {time.monotonic() - self._still_since:.1f} s")
            self._asked = self._still_since = None
            fields = ("actions", "execute", "sequence", "starts_window", "surprise", "timing")
            return Chunk(**{name: message[name] for name in fields}, observed_at=message["time"])
        if kind == "replan" and message.get("epoch") == self._epoch:
            self._queue.clear()
        if kind == "error":
            text = f"{message['message']} ({message['code']})"
            lasting = message["code"] not in PASSING
            if lasting and (ours or message["code"] != "bad_observation"):
                raise ValueError(f"the server refuses: {text}")
            if ours:
                self._asked, self._trouble = None, text
                if message["code"] == "stale":  # the reset was lost on the way
                    self._greeted = {}
            elif lasting:
                self.refused += 1
                logger.warning(f"the server did not take a frame: {text}")
        return None

    def _allowance(self) -> float:
        """Count an outage and return the seconds that it may still last.

        Raises:
            ConnectionError: None.
        """
        now = time.monotonic()
        if self._still_since is None:
            self._still_since = now
            self.outages += 1
            logger.warning(f"no actions: {self._trouble}; holding still for at most {self._max_outage_s:g} s")
        if now - self._still_since > self._max_outage_s:
            reason = (None if self._link.up else self._link.failure) or self._trouble
            raise ConnectionError(f"no actions from {self._link.url} for {now - self._still_since:.1f} s: {reason}")
        return self._still_since + self._max_outage_s - now

    def _hold(self, state: Array) -> Array:
        """Return the command that keeps the robot where it is."""
        self._allowance()
        self.held += 1
        self.due = time.monotonic()
        robot = self.welcome["embodiment"]
        seen = dict(zip((one["name"] for one in robot["state"]), np.asarray(state, np.float32), strict=True))
        where = [seen.get(one["name"]) for one in robot["action"]] if self._last is None else self._last
        # A velocity stands still at its `rest`, whatever it was.
        still = [at if one["rest"] is None else one["rest"] for at, one in zip(where, robot["action"], strict=True)]
        if None in still:
            raise ConnectionError(f"{self._trouble} before the first action, and the state does not tell how to stand")
        return np.array(still, np.float32)
