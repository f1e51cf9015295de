"""A robot's connection to its server: it greets, sends without holding up the caller, and comes back when it breaks."""

import logging
import socket
import ssl
from collections import deque
from contextlib import suppress
from threading import Condition, Thread
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

from lerobot_wam.serving.protocol import PATH, VERSION, ProtocolError, pack, unpack

logger = logging.getLogger(__name__)

PASSING = ("rate_limited", "stale", "overloaded", "shutting_down", "internal")
"""Errors after which the same request may succeed a little later."""
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.1, 2.0
_GOODBYE_S = 1.0
_WAITING_MESSAGES = 32
_BROKEN = (OSError, EOFError, WebSocketException, ProtocolError)


class Link:
    """One connection at a time; a thread opens it, listens, and opens it again with a growing pause in between.

    Args:
        url: ws://HOST:PORT or wss://HOST:PORT.
        robot: Name of the robot's embodiment or its LeRobot robot type; "" takes what the server serves.
        token: What the server was told to ask for.
        timeout_s: How long a connection may take to open.
        ca_file: Certificate authority of the server's certificate, for wss; None takes the system's.

    Attributes:
        welcome: What the server said last; its `session` resumes the session on the next connection.
        connections: Connections opened so far.
        dropped: Messages that were never sent, because there was no connection or the network is too slow for them.
        failure: Why the last attempt to connect did not succeed, or the last connection ended.

    Raises:
        ConnectionError: Nobody answers, or somebody else.
        PermissionError: The token is not the server's.
        ValueError: A URL of another form, or a server that does not serve this robot.
    """

    def __init__(
        self, url: str, robot: str = "", token: str | None = None, timeout_s: float = 10.0, ca_file: str | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError(f"the server's address is {url!r}: expected ws://HOST:PORT, or wss:// where it has TLS")
        self.url = url.rstrip("/") + ("" if parts.path.strip("/") else PATH)
        self._options: dict[str, Any] = {
            "additional_headers": {"Authorization": f"Bearer {token}"} if token else None,
            "ssl": ssl.create_default_context(cafile=ca_file) if parts.scheme == "wss" else None,
            "compression": None,  # pictures hardly shrink, and it costs the control loop's time
            "open_timeout": timeout_s,
            "close_timeout": _GOODBYE_S,
        }
        self._robot, self._timeout_s = robot, timeout_s
        self._changed = Condition()
        self._connection: ClientConnection | None = None
        self._inbox: deque[dict[str, Any]] = deque()
        self._outbox: deque[bytes] = deque(maxlen=_WAITING_MESSAGES)
        self._closing = self._over = False
        self.welcome: dict[str, Any] = {}
        self.connections = self.dropped = 0
        self.failure: Exception | None = None
        self._thread = Thread(target=self._keep, name="lerobot-wam link", daemon=True)
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self.connections or self.failure)
        self.check()

    @property
    def up(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    def check(self) -> None:
        """Raise `failure` where there will be no other connection."""
        if self._over and self.failure is not None:
            raise self.failure

    def send(self, message: dict[str, Any]) -> None:
        """Send soon. Where messages pile up, the oldest are dropped: what is new matters more."""
        data = pack(message)
        with self._changed:
            full = len(self._outbox) == _WAITING_MESSAGES
            if full or not self.up:
                self.dropped += 1
            if self.up:
                self._outbox.append(data)
                self._changed.notify_all()
        if full and self.dropped % _WAITING_MESSAGES == 1:
            logger.warning(f"the network to {self.url} is slower than the pictures: {self.dropped} frames not sent")

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        """Return the next message; None where none comes in time or the connection is lost."""
        with self._changed:
            self._changed.wait_for(lambda: self._inbox or not self.up, timeout_s)
            return self._inbox.popleft() if self._inbox else None

    def wait_until_up(self, timeout_s: float) -> None:
        """Return once there is a connection, there will be none, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.up or self._over, timeout_s)

    def drop(self) -> None:
        """Give up a connection on which nothing is heard, also where a message is stuck in it."""
        connection = self._connection
        if connection is not None:
            with suppress(OSError):  # it broke a moment ago
                connection.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Send what waits, say goodbye and end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(_GOODBYE_S)
        self.drop()

    def _keep(self) -> None:
        delay = _FIRST_DELAY_S
        while not self._closing:
            try:
                with connect(self.url, **self._options) as connection:
                    welcome = self._greet(connection)
                    delay = _FIRST_DELAY_S
                    self._listen(connection, welcome)
            except (*_BROKEN, ValueError) as error:
                with self._changed:
                    self.failure = _explained(error, self.url)
                    self._over = not self.connections or not isinstance(self.failure, ConnectionError)
                    self._changed.notify_all()
                if self._over:
                    return
            with self._changed:
                self._changed.wait_for(lambda: self._closing, delay)
            delay = min(2 * delay, _LONGEST_DELAY_S)

    def _greet(self, connection: ClientConnection) -> dict[str, Any]:
        """Say who is there and return the server's welcome.

        Raises:
            ValueError: The server refuses, speaks another version, or came back as a server of another robot.
        """
        session = self.welcome.get("session")
        connection.send(pack({"type": "hello", "protocol": VERSION, "robot": self._robot, "session": session}))
        welcome = unpack(connection.recv(self._timeout_s, decode=False))
        if welcome["type"] == "error":
            later = welcome["code"] in PASSING
            raise (ConnectionError if later else ValueError)(f"the server at {self.url} refuses: {welcome['message']}")
        if welcome["protocol"] != VERSION:
            raise ValueError(
                f"the server speaks protocol {welcome['protocol']}, this client {VERSION}: install the same "
                f"lerobot_policy_wam on both (the server has {welcome['version']})"
            )
        if self.welcome and welcome["embodiment"] != self.welcome["embodiment"]:
            raise ValueError(
                f"the server came back serving {welcome['embodiment']['name']!r}, the episode began with "
                f"{self.welcome['embodiment']['name']!r}: start anew"
            )
        return welcome

    def _listen(self, connection: ClientConnection, welcome: dict[str, Any]) -> None:
        with self._changed:
            self.welcome = welcome
            self._inbox.clear()
            self._outbox.clear()
            self._connection = connection
            self.connections += 1
            self._changed.notify_all()
        Thread(target=self._send_waiting, args=[connection], name="lerobot-wam sender", daemon=True).start()
        try:
            for data in connection:
                message = unpack(data)
                with self._changed:
                    self._inbox.append(message)
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._connection = None
                self._changed.notify_all()

    def _send_waiting(self, connection: ClientConnection) -> None:
        def here() -> bool:
            return self._connection is connection

        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._outbox or self._closing or not here())
                if not here():
                    return
                data = self._outbox.popleft() if self._outbox else None
            try:
                if data is None:
                    return connection.close()
                connection.send(data)
            except ConnectionClosed:
                return


def _explained(error: Exception, url: str) -> Exception:
    """Return what to tell a person; a ConnectionError for what may pass."""
    if type(error) in (ValueError, ConnectionError):  # said by this file
        return error
    if isinstance(error, InvalidURI):
        return ValueError(f"the server's address is {url!r}: expected ws://HOST:PORT")
    if isinstance(error, ssl.SSLCertVerificationError):
        return PermissionError(f"the certificate of {url} is not trusted ({error.verify_message}): give its CA's file")
    if isinstance(error, InvalidStatus) and error.response.status_code == 401:
        return PermissionError(
            f"the server at {url} refused the token: give the one that it was started with (drive: --token-file)"
        )
    if isinstance(error, InvalidStatus) and error.response.status_code < 500:
        return ValueError(
            f"{url} answered with HTTP status {error.response.status_code}: expected a lerobot-wam server"
        )
    return ConnectionError(
        f"no server answers at {url} ({error or type(error).__name__}): start one with "
        "lerobot-wam serve --policy.path=CHECKPOINT, or correct the address"
    )
