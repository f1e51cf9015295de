"""A policy behind a real server, in a thread of this process."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.serving.monitor import Monitor
from lerobot_wam.serving.server import Server
from lerobot_wam.serving.settings import ServeSettings

PATIENCE_S = 60.0


class Served:
    """A server that runs until `stop`.

    Attributes:
        url: Its address, such as ws://127.0.0.1:8000.
        server: Itself; its loop runs in another thread.
    """

    def __init__(self, policy: WAMPolicy, monitor: Monitor | None = None, **settings: Any) -> None:
        self._address: Future[tuple[str, Server]] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(policy, monitor, settings)), daemon=True)
        self._thread.start()
        self.url, self.server = self._address.result(PATIENCE_S)

    @property
    def host(self) -> str:
        """Where it listens."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Likewise."""
        return urlsplit(self.url).port or 0

    def stop(self) -> None:
        """Shut down in good order, as SIGTERM does."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join(PATIENCE_S)

    def kill(self) -> None:
        """Break every connection at once and forget everything, as SIGKILL does; the thread ends a little later."""
        connections = self.server._listener.connections  # type: ignore[union-attr]

        def break_all() -> None:
            for connection in list(connections):
                connection.transport.abort()

        self._loop.call_soon_threadsafe(break_all)
        self.stop()

    async def _serve(self, policy: WAMPolicy, monitor: Monitor | None, settings: dict[str, Any]) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        try:
            server = Server(policy, ServeSettings(**({"port": 0, "rate_limit": 1e6} | settings)), monitor)
            async with server.listening() as address:
                await server.wait_until_ready()
                self._address.set_result((address, server))
                await self._over.wait()
        except BaseException as error:  # to whoever waits for the address
            if self._address.done():
                raise
            self._address.set_exception(error)


@contextmanager
def served(policy: WAMPolicy, monitor: Monitor | None = None, **settings: Any) -> Iterator[Served]:
    """Serve a policy while the context lasts, on a free port, with no limit on messages unless `settings` say so."""
    server = Served(policy.eval(), monitor, **settings)
    try:
        yield server
    finally:
        server.stop()
