"""The server: who may come in, what is at which path, when it begins and how it ends."""

import asyncio
import hmac
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus

from websockets.asyncio.server import Server as Listener
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from lerobot_wam.batches import BatchReader
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.serving import dashboard
from lerobot_wam.serving.engine import Engine
from lerobot_wam.serving.metrics import Metrics
from lerobot_wam.serving.monitor import Monitor
from lerobot_wam.serving.openpi import Openpi
from lerobot_wam.serving.protocol import PATH, ProtocolError
from lerobot_wam.serving.robots import Robots
from lerobot_wam.serving.settings import ServeSettings

_PING = 20.0
"""Seconds between two questions whether the other side is still there."""


class Server:
    """One policy for many robots.

    Args:
        policy: What is served, in evaluation mode; nobody else may use it meanwhile.
        settings: How.
        monitor: What people may see; None without a live page.
    """

    def __init__(self, policy: WAMPolicy, settings: ServeSettings, monitor: Monitor | None = None) -> None:
        self.policy = policy
        self.settings = settings
        self.monitor = monitor
        self.metrics = Metrics()
        self.ready = False
        self.engine = Engine(policy, settings, self.metrics)
        self.robots = Robots(self)
        self._listener: Listener | None = None
        self._sockets: dict[str, Callable[[ServerConnection], Awaitable[None]]] = {
            PATH: self.robots.serve,
            "/": Openpi(self).serve,
        }
        self._pages: dict[str, Callable[[], Response]] = {
            "/healthz": lambda: _status(self.engine.alive, "alive", "no chunk is computed any more: start it anew"),
            "/readyz": lambda: _status(self.ready, "ready", "not ready: warming up, or shutting down"),
            "/metrics": lambda: _page(self.metrics.page(), self.metrics.content_type),
        }
        self._open_pages, self._open_sockets = {"/healthz", "/readyz"}, set[str]()
        if monitor is not None:
            self._sockets[dashboard.FEED] = lambda connection: dashboard.feed(connection, monitor, self.authorized)
            self._pages |= {path: partial(dashboard.page, path) for path in dashboard.PATHS}
            self._open_pages.update(dashboard.PATHS)
            self._open_sockets.add(dashboard.FEED)  # a page cannot set headers: it says its token first

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Serve for as long as the context lasts, and close in good order: the chunk in hand is still sent.

        Yields:
            The server's address, such as ws://127.0.0.1:8000. It is ready once `wait_until_ready` returns.

        Raises:
            OSError: The port is taken, or the certificate cannot be read.
        """
        settings, tls = self.settings, None
        if settings.tls_cert is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(settings.tls_cert, settings.tls_key)
        async with serve(
            self._enter,
            settings.host,
            settings.port,
            process_request=self._doorkeeper,
            ssl=tls,
            compression=None,  # of pictures it is slow, and a small message could unpack to a huge one
            max_size=settings.limits.message_bytes,
            max_queue=2,
            open_timeout=settings.handshake_timeout,
            ssl_handshake_timeout=None if tls is None else settings.handshake_timeout,
            close_timeout=settings.send_timeout,
            ping_interval=_PING,
            ping_timeout=_PING,
            server_header=None,
        ) as self._listener:
            async with self.engine.running():
                self._warm_up = asyncio.create_task(self._get_ready())
                port = next(iter(self._listener.sockets)).getsockname()[1]
                host = f"[{settings.host}]" if ":" in settings.host else settings.host
                try:
                    yield f"{'ws' if tls is None else 'wss'}://{host}:{port}"
                finally:
                    self.ready = False
                    self._listener.close(close_connections=False)
                    self._warm_up.cancel()
            await self.robots.dismiss()
            leaving = [c.close(CloseCode.GOING_AWAY, "shutting down") for c in self._listener.connections]
            await asyncio.gather(*leaving)

    async def wait_until_ready(self) -> None:
        """Return once a chunk has been planned, and what is loaded or compiled late is there."""
        await asyncio.shield(self._warm_up)

    def category_of(self, robot: str) -> int:
        """Return the index of the embodiment of this name or LeRobot robot type; "" is the one that the policy acts as.

        Raises:
            ProtocolError: No embodiment of the policy, or one without actions; the message lists those there are.
        """
        acting = {i: space.spec for i, space in enumerate(self.policy.action_spaces) if space.spec.action}
        chosen = robot or self.policy.config.embodiment
        fitting = [i for i, spec in acting.items() if chosen == spec.name or chosen in spec.robot_types]
        if not robot and not fitting:
            fitting = list(acting)
        if len(fitting) == 1:
            return fitting[0]
        names = ", ".join(spec.name for spec in acting.values()) or "none that acts"
        raise ProtocolError("bad_message", f"robot {robot!r:.60}, expected one of this policy's embodiments: {names}")

    def reader(self, category: int) -> BatchReader:
        """Return what turns the pictures of robots of an embodiment into the model's."""
        return BatchReader(self.policy.config, self.policy.action_spaces, category, self.policy.codecs, None)

    def authorized(self, token: str) -> bool:
        """Whether a token lets in. The time that this takes does not tell how much of it is right."""
        expected = self.settings.token
        return expected is None or hmac.compare_digest(token.encode(), expected.encode())

    async def _get_ready(self) -> None:
        await self.engine.warm_up(self.category_of(""))
        self.ready = True

    async def _enter(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        await self._sockets[_path(connection.request)](connection)

    def _doorkeeper(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer a plain GET, or refuse a websocket; None lets it in."""
        path, presented = _path(request), " ".join(request.headers.get_all("Authorization"))
        is_socket = "websocket" in " ".join(request.headers.get_all("Upgrade")).lower()
        is_open = path in (self._open_sockets if is_socket else self._open_pages)
        if not is_open and not self.authorized(presented.removeprefix("Bearer ").removeprefix("Api-Key ")):
            return self._refused(HTTPStatus.UNAUTHORIZED, "send the header 'Authorization: Bearer TOKEN'")
        if not is_socket:
            if path in self._pages:
                return self._pages[path]()
            return self._refused(HTTPStatus.NOT_FOUND, f"robots connect by websocket at {PATH}")
        assert self._listener is not None
        if path not in self._sockets:
            return self._refused(HTTPStatus.NOT_FOUND, f"robots connect at {PATH}")
        if len(self._listener.connections) >= self.settings.max_connections:
            return self._refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
        if "Origin" in request.headers and not is_open:
            return self._refused(HTTPStatus.FORBIDDEN, "web pages are not robots")
        return None

    def _refused(self, status: HTTPStatus, reason: str) -> Response:
        self.metrics.rejected.labels(str(status.value)).inc()
        return _text(status, reason)


def _path(request: Request) -> str:
    return request.path.partition("?")[0]


def _status(good: bool, word: str, otherwise: str) -> Response:
    return _text(HTTPStatus.OK, word) if good else _text(HTTPStatus.SERVICE_UNAVAILABLE, otherwise)


def _text(status: HTTPStatus, text: str) -> Response:
    return _page(f"{text}\n".encode(), "text/plain; charset=utf-8", status)


def _page(body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    headers = {
        "Content-Type": kind,
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Connection": "close",
    }
    return Response(status.value, status.phrase, Headers(headers), body)
