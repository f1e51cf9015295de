"""One process owns the robot, the others follow: they make the same calls with the same observations.

The caller of rank 0 uses what `lead` returns as it would use the runtime; every other rank runs `follow`:

    parallel.share(runtime)
    if parallel.rank > 0:
        follow(runtime, parallel)
    else:
        with lead(runtime, parallel) as runtime:
            ...  # new_session, act, plan

Calls travel as JSON and plain tensors through the CPU, so nothing is unpickled and followers that wait use no GPU.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import partial
from itertools import count
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor

from lerobot_wam.runtime.parallel import Parallel
from lerobot_wam.runtime.session import Runtime
from lerobot_wam.runtime.state import Observation, Session
from lerobot_wam.runtime.stitching import Commitment

EVERYWHERE = ("observe", "act", "plan", "plan_frames")
"""Methods of a runtime that change sessions, and so are called on every rank."""
VALUES = {"Observation": Observation, "Commitment": Commitment}


@contextmanager
def lead(runtime: Runtime, parallel: Parallel) -> Iterator[Runtime]:
    """Let every rank make the calls that change sessions; the followers stop at the end.

    Its sessions come from its `new_session`, and only its methods, called by one thread at a time, change them.

    Yields:
        The runtime to use; its answers are those of this rank.
    """
    yield cast(Runtime, _Leader(runtime, parallel))
    _send(None, [], parallel)


def follow(runtime: Runtime, parallel: Parallel) -> None:
    """Make the calls of rank 0 on sessions of this rank's own, until rank 0 stops leading."""
    sessions: dict[int, Session] = {}

    def unpack(value: Any, tensors: list[Tensor]) -> Any:
        match value:
            case list():
                return [unpack(item, tensors) for item in value]
            case {"tensor": index}:
                return tensors[index]
            case {"value": kind, "fields": of_it}:
                return VALUES[kind](*unpack(of_it, tensors))
            case {"session": number, "seed": seed, "category": category}:
                return sessions.setdefault(number, runtime.new_session(seed, category))
        return value

    while (received := _receive(parallel)) is not None:
        call, tensors = received
        for number in sessions.keys() - set(call["alive"]):
            del sessions[number]
        args, named = unpack(call["args"], tensors), unpack(list(call["named"].values()), tensors)
        with suppress(ValueError):  # the same inputs raise it on rank 0, whose caller decides
            getattr(runtime, call["method"])(*args, **dict(zip(call["named"], named, strict=True)))


class _Leader:
    """A runtime whose calls of `EVERYWHERE` are made on every rank."""

    def __init__(self, runtime: Runtime, parallel: Parallel) -> None:
        self._runtime, self._parallel = runtime, parallel
        self._numbers: WeakKeyDictionary[Session, int] = WeakKeyDictionary()
        self._next = count()

    def new_session(self, seed: int, category: int = 0) -> Session:
        session = self._runtime.new_session(seed, category)
        self._numbers[session] = next(self._next)
        return session

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._runtime, name)
        return partial(self._everywhere, name, attribute) if name in EVERYWHERE else attribute

    def _everywhere(self, name: str, method: Callable[..., Any], *args: Any, **named: Any) -> Any:
        tensors: list[Tensor] = []
        call = {
            "method": name,
            "args": self._pack(args, tensors),
            "named": {key: self._pack(value, tensors) for key, value in named.items()},
            "alive": list(self._numbers.values()),
        }
        _send(call, tensors, self._parallel)
        return method(*args, **named)

    def _pack(self, value: Any, tensors: list[Tensor]) -> Any:
        match value:
            case list() | tuple():
                return [self._pack(item, tensors) for item in value]
            case Tensor():
                tensors.append(value)
                return {"tensor": len(tensors) - 1}
            case Observation() | Commitment():
                of_it = [getattr(value, field.name) for field in fields(value)]
                return {"value": type(value).__name__, "fields": self._pack(of_it, tensors)}
            case Session():
                if value not in self._numbers:
                    raise ValueError("the followers do not know this session: take one from new_session, and no copy.")
                return {
                    "session": self._numbers[value],
                    "seed": value.generator.initial_seed(),
                    "category": value.category,
                }
        return value


def _send(call: dict[str, Any] | None, tensors: list[Tensor], parallel: Parallel) -> None:
    """Send one call to every follower; None tells them to stop."""
    kinds = [(str(x.dtype).removeprefix("torch."), list(x.shape)) for x in tensors]
    message = torch.frombuffer(bytearray(json.dumps([call, kinds]).encode()), dtype=torch.uint8)
    for x in (torch.tensor([len(message)]), message, *tensors):
        dist.broadcast(x.cpu().contiguous(), group_src=0, group=parallel.control)


def _receive(parallel: Parallel) -> tuple[dict[str, Any], list[Tensor]] | None:
    def receive(shape: list[int], dtype: torch.dtype) -> Tensor:
        x = torch.empty(shape, dtype=dtype)
        dist.broadcast(x, group_src=0, group=parallel.control)
        return x

    length = int(receive([1], torch.int64))
    call, kinds = json.loads(bytes(receive([length], torch.uint8).tolist()))
    tensors = [receive(shape, getattr(torch, dtype)) for dtype, shape in kinds]
    return None if call is None else (call, tensors)
