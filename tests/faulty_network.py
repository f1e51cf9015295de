"""A network between a client and a server that can be cut, held up, delayed and throttled, all in this process."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

BROKEN = (OSError, asyncio.IncompleteReadError)


class FaultyNetwork:
    """A TCP proxy. What it does to bytes is set from any thread and holds from then on.

    Attributes:
        target: Where connections lead, (host, port); a restarted server may have another port.
        port: Where the proxy listens, on 127.0.0.1.
        delay_s: How long every byte is under way, in either direction.
        bytes_per_s: How many bytes pass in a second per connection and direction; None for no limit.
        connections: Connections accepted so far.
    """

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.port = 0
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._passing: asyncio.Event  # set while bytes flow
        self._reachable = True

    def cut(self) -> None:
        """Break every connection and accept no other until `restore`: both ends are told at once."""
        self._run(self._cut())

    def hold(self) -> None:
        """Let nothing pass until `restore`, and tell nobody: a pulled cable, whose bytes TCP sends again later."""
        self._loop.call_soon_threadsafe(self._passing.clear)

    def restore(self) -> None:
        """Undo `cut` and `hold`."""
        self._reachable = True
        self._loop.call_soon_threadsafe(self._passing.set)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _start(self) -> None:
        self._passing = asyncio.Event()
        self._passing.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        self._reachable = False
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        writers = [writer]
        try:
            if self._reachable:
                far_reader, far_writer = await asyncio.open_connection(*self.target)
                writers.append(far_writer)
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pass_on(reader, far_writer))
                    both.create_task(self._pass_on(far_reader, writer))
        except* BROKEN:
            pass  # the target is not there, or one end went away
        finally:
            self._tasks.discard(task)
            for one in writers:
                one.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes one way; raises IncompleteReadError when the sender hangs up, which ends the other way too."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        arriving = asyncio.create_task(self._deliver(under_way, writer))
        try:
            while data := await reader.read(65536):
                under_way.put_nowait((self._loop.time() + self.delay_s, data))
            under_way.put_nowait((self._loop.time() + self.delay_s, b""))
            await arriving
        finally:
            arriving.cancel()
        raise asyncio.IncompleteReadError(b"", None)

    async def _deliver(self, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            await self._passing.wait()
            if not data:
                return
            with suppress(*BROKEN):
                writer.write(data)
                await writer.drain()
            if self.bytes_per_s is not None:
                await asyncio.sleep(len(data) / self.bytes_per_s)

    async def _stop(self) -> None:
        self._server.close()
        await self._cut()


@contextmanager
def faulty_network(host: str, port: int) -> Iterator[FaultyNetwork]:
    """A network to the server at (host, port), open while the context is: connect to 127.0.0.1 and its `port`."""
    network = FaultyNetwork(host, port)
    thread = threading.Thread(target=network._loop.run_forever, name="faulty network", daemon=True)
    thread.start()
    network._run(network._start())
    try:
        yield network
    finally:
        network._run(network._stop())
        network._loop.call_soon_threadsafe(network._loop.stop)
        thread.join()
        network._loop.close()
