"""Robots that speak the native protocol word by word, and a server for them in the same event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from tiny_policies import SIZE
from websockets.asyncio.client import ClientConnection, connect

from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.serving.protocol import PATH, VERSION, pack, unpack
from lerobot_wam.serving.server import Server
from lerobot_wam.serving.settings import ServeSettings

TASK = "push red"


@asynccontextmanager
async def served(policy: WAMPolicy, **settings: Any) -> AsyncIterator[tuple[Server, str]]:
    server = Server(policy, ServeSettings(port=0, **settings))
    async with server.listening() as address:
        await server.wait_until_ready()
        yield server, address


class Robot:
    """Says what it is told to say, and returns what it hears."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection, self.epoch, self.sequence = connection, 0, -1

    async def say(self, kind: str, **fields: Any) -> None:
        await self.connection.send(pack({"type": kind, **fields}))

    async def hear(self, kind: str) -> dict[str, Any]:
        data = await asyncio.wait_for(self.connection.recv(), 60)
        assert isinstance(data, bytes)
        message = unpack(data)
        assert message["type"] == kind, message
        return message

    async def ask(self, kind: str, answer: str, **fields: Any) -> dict[str, Any]:
        await self.say(kind, **fields)
        return await self.hear(answer)

    async def greet(self, **fields: Any) -> dict[str, Any]:
        return await self.ask("hello", "welcome", **({"protocol": VERSION, "robot": "", "session": None} | fields))

    async def show(self, seen: dict[str, Any], plan: bool = False, step: int = 1, **fields: Any) -> None:
        self.sequence += step
        known = {"epoch": self.epoch, "sequence": self.sequence, "time": 1.5, "task": TASK}
        await self.say("observe", **(known | seen | {"plan": plan} | fields))

    async def act(self, steps: list[dict[str, Any]]) -> np.ndarray:
        """Executes whole chunks, as `select_action` does."""
        queue, actions = [], []
        for seen in steps:
            await self.show(seen, plan=not queue)
            if not queue:
                chunk = await self.hear("chunk")
                queue = list(chunk["actions"][: chunk["execute"]])
            actions.append(queue.pop(0))
        return np.stack(actions)


@asynccontextmanager
async def robot(address: str, **options: Any) -> AsyncIterator[Robot]:
    async with connect(address + PATH, compression=None, **options) as connection:
        yield Robot(connection)


def see(step: int, number: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng([number, step])
    picture = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    return {"images": {"observation.images.front": picture}, "state": rng.random(6, dtype=np.float32)}
