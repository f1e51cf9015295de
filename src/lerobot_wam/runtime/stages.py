"""The named stages of a chunk's computation, and a clock that can be put to them.

The runtime announces "image" and "text" (encoders), "vae" (video encoding), "observe" (the observation pass), "denoise"
(denoising passes and solver steps of a chunk; a fused observation pass is in here, and "observe" is absent) and
"decode" (imagined pixels).
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

_NOTHING = nullcontext()


class Stages:
    """Is told when a stage begins and ends. This one does not listen, and costs nothing."""

    def __call__(self, name: str) -> AbstractContextManager[None]:
        """Return the context in which stage `name` is computed."""
        return _NOTHING


NO_STAGES = Stages()


class Timer(Stages):
    """Measures every stage on the device's own time line.

    On CUDA by events on the current stream, so nothing waits for the clock and work queues up as it does without one.
    A stage lasts from the end of the work before it to the end of its own. Stages therefore never overlap, and add up
    to no more than the whole. Other accelerators are synchronised instead; the CPU needs neither.

    Args:
        device: Where the model computes.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._marks: list[tuple[str, Any, Any]] = []  # events on CUDA, else seconds

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        start = self._mark()
        yield
        self._marks.append((name, start, self._mark()))

    def read(self) -> dict[str, float]:
        """Wait for the device; return the seconds of each stage since the last call, all its visits together."""
        synchronize(self.device)
        seconds: dict[str, float] = {}
        for name, start, end in self._marks:
            took = start.elapsed_time(end) / 1000 if self.device.type == "cuda" else end - start
            seconds[name] = seconds.get(name, 0.0) + took
        self._marks.clear()
        return seconds

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            synchronize(self.device)
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event


def synchronize(device: torch.device) -> None:
    """Wait until all that was queued on the device is done; the CPU queues nothing."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
