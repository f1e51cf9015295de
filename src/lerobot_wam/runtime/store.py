"""The sessions that a process holds, in the order of their last use, within a bound of memory."""

from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from lerobot_wam.model.cache import KVCache
from lerobot_wam.runtime.state import Session


def held_bytes(value: Any) -> int:
    """Memory of the tensors in a session, or in a part of one, in bytes; a cache counts with the room that it has."""
    match value:
        case Tensor():
            return value.nbytes
        case KVCache():
            return value.bytes
        case list() | tuple():
            return sum(map(held_bytes, value))
    if is_dataclass(value):
        return sum(held_bytes(getattr(value, field.name)) for field in fields(value))
    return 0


def forget_windows(sessions: Iterable[Session]) -> None:
    """Give up the memory of sessions' windows. The sessions live on: their next chunks start windows."""
    for session in sessions:
        session.branch, session.condition = None, None
        session.begin_block([])


class SessionStore:
    """Bounds the memory of sessions by forgetting the windows of those that were used longest ago.

    A session that nobody else holds any more leaves by itself. One thread at a time may use a store.

    Args:
        max_bytes: The bound.
    """

    def __init__(self, max_bytes: float) -> None:
        self.max_bytes = max_bytes
        self._sessions: WeakKeyDictionary[Session, None] = WeakKeyDictionary()

    def use(self, sessions: Sequence[Session]) -> int:
        """Note that sessions have just been used, and forget windows until the bound holds.

        Returns:
            How many windows were forgotten: of the oldest sessions first, of these ones if need be.
        """
        for session in sessions:
            self._sessions.pop(session, None)
            self._sessions[session] = None
        held = {session: held_bytes(session) for session in self._sessions}
        excess, forgotten = sum(held.values()) - self.max_bytes, []
        for session, size in held.items():
            if excess <= 0:
                break
            del self._sessions[session]
            forgotten.append(session)
            excess -= size
        forget_windows(forgotten)
        return len(forgotten)

    @property
    def bytes(self) -> int:
        """Memory of the windows that are held."""
        return sum(map(held_bytes, self._sessions))
