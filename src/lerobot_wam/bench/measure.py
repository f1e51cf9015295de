"""A closed loop under a clock: robots that see random frames, chunk after chunk; settings take turns.

"chunk" is all that a chunk's control steps compute; "reaction" the last of them, from the frame that completes what is
observed to the first action. The other names are the runtime's stages, see `lerobot_wam.runtime.stages`.
"""

import sys
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lerobot_wam.bench.cost import Cost, PassShape, pass_cost
from lerobot_wam.bench.roofline import Roofline
from lerobot_wam.runtime.acceleration import Pass, Passes
from lerobot_wam.runtime.session import Runtime
from lerobot_wam.runtime.stages import Timer, synchronize
from lerobot_wam.runtime.state import Observation

FirstChunk = tuple[Tensor, Tensor | None]
"""Actions and latents of a chunk."""
NETWORK_STAGES = ("observe", "denoise")
COMPARED = 2  # chunks: one that starts a window, one that reads a cache
_DRAWS = 2000
_INSTRUCTIONS = 3  # chunks under a new instruction, for the stage that is computed once a task
_NUMBERS = count(1)  # of instructions: a text that one loop has read is known to a codec that another one shares


@dataclass
class Tally:
    """Runs passes as another does, and notes the shape of each.

    Attributes:
        passes: What runs them.
        pixels: Latent cells in a token.
        shapes: Passes since somebody last cleared the list.
    """

    passes: Passes
    pixels: int
    shapes: list[PassShape] = field(default_factory=list)

    def run(
        self, function: Pass, persistent: tuple[Tensor, ...], inputs: tuple[Tensor, ...], key: Hashable
    ) -> tuple[Tensor, ...]:
        """See `Passes`; `key` and the order of the tensors are those of `Denoiser`."""
        assert isinstance(key, tuple)
        _, past, names = key
        given = dict(zip(names, inputs, strict=True))
        latents = given["video"] if "video" in given else given["observed"]
        _, *context = persistent
        self.shapes.append(
            PassShape(
                frame_tokens=latents.shape[3] * latents.shape[4] // self.pixels,
                past=past,
                observed=given["observed"].shape[2] if "observed" in given else 0,
                noisy="video" in given,
                context=sum(tokens.shape[1] for tokens in context if tokens.ndim == 3),
                remembered=any(kept.ndim == 5 for kept in context),
                rows=len(latents),
            )
        )
        return self.passes.run(function, persistent, inputs, key)


class Loop:
    """One setting's robots, and what is measured of them.

    Args:
        runtime: Takes the clock and the tally.
        frame_size: Height and width of what the video codec reads.
        category: Index of the robots' embodiment.
        robots: How many act in step.
        seed: Of noise, frames and states; loops of one seed see the same.
        compared: Chunks whose results are kept.

    Attributes:
        seconds: Of every measured stage, a number for each chunk that had it.
        passes: Of every measured chunk.
        kept: Bytes on the device that it holds between chunks; whoever builds it knows.
        taken: Most bytes that a chunk took for a while.
        first: Actions and latents of its first chunks, to be compared with another loop's.
    """

    def __init__(
        self,
        runtime: Runtime,
        frame_size: tuple[int, int],
        category: int,
        robots: int,
        seed: int,
        compared: int = COMPARED,
    ) -> None:
        device = runtime.device
        self.runtime, self.timer = runtime, Timer(device)
        self.tally = Tally(runtime.passes, runtime.model.config.patch[1] * runtime.model.config.patch[2])
        runtime.stages, runtime.passes = self.timer, self.tally
        self.sessions = [runtime.new_session(seed + index, category) for index in range(robots)]
        self.seconds: dict[str, list[float]] = {}
        self.passes: list[list[PassShape]] = []
        self.first: list[FirstChunk] = []
        self.kept = self.taken = 0
        self._compared = compared
        self._task = "task 0"
        self._generator = torch.Generator().manual_seed(seed)
        self._frames = torch.rand(8, 3, *frame_size, generator=self._generator).to(device) * 2 - 1
        self._states = torch.randn(8, len(runtime.action_spaces[category].spec.state), generator=self._generator)

    def chunk(self) -> dict[str, float]:
        """Execute the last chunk, plan the next one and decode its video; return the seconds of every stage."""
        device = self.runtime.device
        before = allocated(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self.tally.shapes.clear()
        total = took = 0.0
        for _ in range(self.runtime.execute_steps if self.sessions[0].chunks else 1):
            seen = [self._look() for _ in self.sessions]
            synchronize(device)
            started = time.perf_counter()
            self.runtime.act(self.sessions, seen)
            synchronize(device)
            took = time.perf_counter() - started
            total += took
        dreams = [session.dream for session in self.sessions if session.dream is not None]
        if dreams[0].latents is not None:
            self.runtime.imagine(dreams[0])
        if len(self.first) < self._compared:
            latents = None if dreams[0].latents is None else dreams[0].latents.float().cpu()
            self.first.append((dreams[0].actions, latents))
        self.taken = max(self.taken, allocated(device, peak=True) - before)
        return self.timer.read() | {"chunk": total, "reaction": took}

    def measure(self) -> None:
        """Compute a chunk and take note of it."""
        for name, value in self.chunk().items():
            self.seconds.setdefault(name, []).append(value)
        self.passes.append(list(self.tally.shapes))

    def measure_instruction(self) -> None:
        """Take note of what a new instruction costs; the chunk that follows it counts for nothing else."""
        self._task = f"task {next(_NUMBERS)}"
        self.seconds.setdefault("text", []).append(self.chunk()["text"])

    def _look(self) -> Observation:
        index = int(torch.randint(len(self._frames), (), generator=self._generator))
        return Observation(self._frames[index], self._states[index], self._task)


def measure(loops: Sequence[Loop], chunks: int) -> None:
    """Let warmed-up loops take turns (A B A B ...), so that whatever else the machine does hits all alike."""
    for _ in tqdm(range(chunks), desc="chunks", disable=None, file=sys.stderr):
        for loop in loops:
            loop.measure()
    for loop in loops:
        for _ in range(_INSTRUCTIONS):
            loop.measure_instruction()


def summarise(loop: Loop, roofline: Roofline, weight_bytes: float) -> dict[str, Any]:
    """Put a measured loop into numbers.

    Args:
        loop: After `measure`.
        roofline: Of its device and type of number.
        weight_bytes: Of one weight of the blocks.

    Returns:
        Milliseconds of every stage, rates, memory (on CUDA this loop's, elsewhere the whole process's), and the
        network's work against the roofline.
    """
    runtime, seconds = loop.runtime, loop.seconds
    number_bytes = runtime.model.patch_embedding.weight.element_size()
    peak = loop.kept + loop.taken if runtime.device.type == "cuda" else process_peak()
    costs = [
        [pass_cost(runtime.model.config, shape, weight_bytes, number_bytes) for shape in shapes]
        for shapes in loop.passes
    ]
    network = sum(sum(seconds.get(name, ())) for name in NETWORK_STAGES)
    work = sum((cost for chunk in costs for cost in chunk), Cost(0, 0))
    least = sum(roofline.seconds(cost) for chunk in costs for cost in chunk)
    median = float(np.median(seconds["chunk"]))
    return {
        "stages_ms": {name: percentiles(values) for name, values in seconds.items()},
        "chunks_per_s": 1 / median,
        "actions_per_s": runtime.execute_steps / median,
        "actions_per_chunk": runtime.execute_steps,
        "gb_peak": peak / 1e9,
        "passes_per_chunk": float(np.mean([len(chunk) for chunk in costs])),
        "tflop_per_chunk": work.flops / len(costs) / 1e12,
        "tflop_per_s": work.flops / network / 1e12,
        "roofline_fraction": least / network,
    }


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return p50, p95 and p99 in milliseconds, and the number of values."""
    p50, p95, p99 = 1000 * np.quantile(seconds, (0.5, 0.95, 0.99))
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99), "n": len(seconds)}


def time_ratio(base: Sequence[float], other: Sequence[float], seed: int = 0) -> dict[str, float]:
    """Return the ratio of two medians, other / base, and its 95 % bootstrap interval over turns.

    Args:
        base: Seconds, turn by turn.
        other: Of the same turns.
        seed: Of the resampling.
    """
    turns_NT = np.random.default_rng(seed).integers(len(base), size=(_DRAWS, len(base)))
    ratios_N = np.median(np.asarray(other)[turns_NT], axis=1) / np.median(np.asarray(base)[turns_NT], axis=1)
    low, high = np.quantile(ratios_N, (0.025, 0.975))
    return {"ratio": float(np.median(other) / np.median(base)), "low_95": float(low), "high_95": float(high)}


def distance(first: Sequence[FirstChunk], reference: Sequence[FirstChunk]) -> dict[str, float]:
    """Return the relative L2 distance of two loops' first chunks, made of the same noise: of "actions" and "video"."""
    found = {}
    for name, ours, theirs in zip(
        ("actions", "video"), zip(*first, strict=True), zip(*reference, strict=True), strict=True
    ):
        if ours[0] is not None:
            a, b = torch.stack(ours).double(), torch.stack(theirs).double()
            found[name] = float((a - b).norm() / b.norm())
    return found


def process_peak() -> int:
    """The most bytes of memory that this process has held."""
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1)


def allocated(device: torch.device, peak: bool = False) -> int:
    """Bytes that torch holds on CUDA; elsewhere nobody counts them, and it is 0."""
    if device.type != "cuda":
        return 0
    return torch.cuda.max_memory_allocated(device) if peak else torch.cuda.memory_allocated(device)
