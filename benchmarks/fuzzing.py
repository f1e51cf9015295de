"""Messages that no client should send, made of messages that clients do send."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import lerobot_wam.serving.openpi as openpi
import lerobot_wam.serving.protocol as protocol
from lerobot_wam.embodiments.spec import EmbodimentSpec

DEEP: list[Any] = []
for _ in range(400):
    DEEP = [DEEP]

QUIET_S = 0.2
"""Seconds after which no further answer is waited for."""

HOSTILE: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**63,
    -(2**63),
    1e308,
    float("nan"),
    float("-inf"),
    "",
    "x" * 5000,
    "\0<script>",
    b"",
    b"\x80\x04.",
    [],
    list(range(2000)),
    DEEP,
    {},
    {"array": {"dtype": "object", "shape": [1], "data": b"\x80\x04N."}},
    {"array": {"dtype": "float32", "shape": [-1], "data": b""}},
    {"array": {"dtype": "uint8", "shape": [2**40, 2**40], "data": b""}},
    {"array": {"dtype": "uint8", "shape": [0, 0, 3], "data": b""}},
    {"array": {"dtype": "float64", "shape": [2], "data": b"\0" * 15}},
    {"jpeg": b"not a picture"},
    {b"__ndarray__": True, b"dtype": "|O", b"shape": [1], b"data": b"\x80\x04N."},
    {b"__ndarray__": True, b"dtype": "<f4", b"shape": [2**62], b"data": b""},
    msgpack.ExtType(5, b"\0"),
    msgpack.Timestamp(0),
)


def mutated(message: bytes, rng: random.Random) -> bytes:
    """Damage a msgpack message, in its bytes or in its meaning; what comes out may by chance be valid."""
    return _cut_up(message, rng) if rng.random() < 0.5 else _reworded(message, rng)


def _cut_up(message: bytes, rng: random.Random) -> bytes:
    data = bytearray(message)
    at, length = rng.randrange(len(data)), rng.randrange(1, 64)
    match rng.randrange(6):
        case 0:
            for _ in range(rng.randrange(1, 9)):
                data[rng.randrange(min(len(data), 256))] ^= 1 << rng.randrange(8)  # where names and lengths are
        case 1:
            del data[at:]
        case 2:
            del data[at : at + length]
        case 3:
            data[at:at] = rng.randbytes(length)
        case 4:
            data *= 2
        case _:
            return rng.randbytes(length)
    return bytes(data)


def _reworded(message: bytes, rng: random.Random) -> bytes:
    content = msgpack.unpackb(message, strict_map_key=False)
    places = list(_places(content))
    for container, key in rng.sample(places, min(len(places), rng.randrange(1, 3))):
        if isinstance(container, dict) and rng.random() < 0.3:
            value = container.pop(key, None)
            if rng.random() < 0.5:
                container["renamed"] = value
        elif isinstance(container, dict) or key < len(container):
            container[key] = rng.choice(HOSTILE)
    return msgpack.packb(content)


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in `content`."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(items):
        yield content, key
        if isinstance(value, dict | list):
            yield from _places(value)


def requests(spec: EmbodimentSpec, picture_size: tuple[int, int]) -> dict[str, list[bytes]]:
    """What a robot may say, per path of the server: the native protocol begins with its greeting."""
    picture, state = np.zeros((*picture_size, 3), np.uint8), np.zeros(len(spec.state), np.float32)
    commitment = {"actions": np.zeros((3, len(spec.action)), np.float32), "delay": 2}
    seen = {"epoch": 0, "time": 0.1, "images": {c.key: picture for c in spec.cameras}, "state": state, "task": "wait"}
    native: list[dict[str, Any]] = [
        {"type": "hello", "protocol": protocol.VERSION, "robot": "", "session": None},
        {"type": "reset", "epoch": 1},
        {"type": "observe", "sequence": 0, "plan": False, **seen},
        {"type": "observe", "sequence": 1, "plan": True, "commitment": commitment, **seen},
    ]
    views: dict[str, Any] = dict.fromkeys(openpi.camera_names(spec).values(), picture)
    foreign = [views | {openpi.STATE: state, "prompt": "wait", "session_id": "a", "endpoint": "infer"}]
    foreign += [{"endpoint": "reset", "session_id": "a"}]
    return {protocol.PATH: list(map(protocol.pack, native)), "/": list(map(openpi.pack, foreign))}


def attack(url: str, spoken: Mapping[str, Sequence[bytes]], count: int, rng: random.Random) -> Counter[str]:
    """Send this many damaged messages to a server, on many connections, half of them after a good greeting.

    Returns:
        How often the server answered how: the code of an error, "chunk" or another answer, "closed" where it hung up.
    """
    answers: Counter[str] = Counter()
    while count > 0:
        path = rng.choice(sorted(spoken))
        with connect(url + path, compression=None) as connection, suppress(ConnectionClosed):
            if path == protocol.PATH and rng.random() < 0.8:
                connection.send(spoken[path][0])
            for _ in range(min(count, rng.randrange(1, 40))):
                connection.send(mutated(rng.choice(spoken[path]), rng))
                count -= 1
            with suppress(TimeoutError):
                while True:
                    answers[_kind(connection.recv(timeout=QUIET_S))] += 1
        answers["closed"] += connection.close_code not in (1000, 1005)
    return answers


def _kind(answer: bytes | str) -> str:
    """The code of an error, else the kind of the answer."""
    if isinstance(answer, str):
        return answer.partition(":")[0]
    message = msgpack.unpackb(answer, strict_map_key=False)
    return message.get("code", message.get("type", "chunk"))
