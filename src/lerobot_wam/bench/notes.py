"""What a policy says while it gets ready, such as what this machine cannot do: it belongs to a result."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _Notes(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def noted() -> Iterator[list[str]]:
    """Collect this package's warnings; they are printed all the same."""
    notes, ours = _Notes(), logging.getLogger("lerobot_wam")
    ours.addHandler(notes)
    try:
        yield notes.lines
    finally:
        ours.removeHandler(notes)
