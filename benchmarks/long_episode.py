"""Cost of every chunk of one long episode: does acting stay as fast as it began?

One robot's session runs for 50 chunks (400 control steps) on random frames. The cost of a chunk is all that its 8
control steps compute: observing, encoding, writing to the cache, denoising. Several episodes run at once with
staggered starts, one chunk each in turn, so that every position of the episode is measured at several times of the
run; medians per position then keep a busy moment of the machine from deciding.
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.common import (
    JOINTS,
    SIZE,
    TASK,
    command_line,
    milliseconds,
    nano_policy,
    options,
    result_name,
    write_result,
)
from lerobot_wam.runtime.session import Observation, Runtime, Session


def run_chunk(runtime: Runtime, session: Session, rng: torch.Generator) -> None:
    """One chunk's control steps, on random frames and states."""
    for _ in range(runtime.chunk_steps):
        frame, state = torch.rand(3, SIZE, SIZE, generator=rng) * 2 - 1, torch.randn(JOINTS, generator=rng)
        runtime.act([session], [Observation(frame, state, TASK)])


def cache_bytes(session: Session) -> int:
    return 0 if session.branch is None else session.branch.cache.bytes


def measure(
    device: str, threads: int, repetitions: int, seed: int, chunks: int, window_full: str = "restart"
) -> dict[str, Any]:
    """Run `repetitions` staggered episodes of `chunks` chunks.

    Raises:
        ValueError: Fewer chunks than two windows.
        RuntimeError: The window did not restart where the configuration says.
    """
    torch.set_num_threads(threads)
    rng = torch.Generator().manual_seed(seed)
    policy = nano_policy(device, seed, window_full=window_full).eval()
    runtime, window = policy.runtime, policy.config.max_chunks
    if chunks < 2 * window:
        raise ValueError(f"--chunks is {chunks}, expected at least {2 * window}: two windows are compared")
    warm_up = runtime.new_session(seed)
    for _ in range(window + 1):
        run_chunk(runtime, warm_up, rng)

    sessions = [runtime.new_session(seed + index) for index in range(repetitions)]
    starts = [index * chunks // repetitions for index in range(repetitions)]
    cost_RN, bytes_RN = np.zeros((repetitions, chunks)), np.zeros((repetitions, chunks), dtype=np.int64)
    restarts_RN = np.zeros((repetitions, chunks), dtype=bool)
    for tick in tqdm(range(starts[-1] + chunks), desc="chunks", disable=None):
        for row, (session, start) in enumerate(zip(sessions, starts, strict=True)):
            chunk = tick - start
            if 0 <= chunk < chunks:
                cost_RN[row, chunk] = milliseconds(device, partial(run_chunk, runtime, session, rng))
                bytes_RN[row, chunk] = cache_bytes(session)
                restarts_RN[row, chunk] = session.dream is not None and session.dream.starts_window
    expected_N = np.arange(chunks) % (window if window_full == "restart" else chunks) == 0
    if not (restarts_RN == expected_N).all():
        raise RuntimeError(f"windows began at chunks {np.flatnonzero(restarts_RN[0])}, expected {expected_N.nonzero()}")
    cost_N = np.median(cost_RN, axis=0)
    window_W = cost_N[: chunks // window * window].reshape(-1, window).mean(axis=1)
    return {
        "device": device,
        "threads": threads,
        "repetitions": repetitions,
        "chunks": chunks,
        "control_steps": chunks * runtime.chunk_steps,
        "window_chunks": window,
        "window_full": window_full,
        "num_inference_steps": policy.config.num_inference_steps,
        "first_window_chunk_ms_mean": float(window_W[0]),
        "last_window_chunk_ms_mean": float(window_W[-1]),
        "last_over_first_window_cost": float(window_W[-1] / window_W[0]),
        "window_chunk_ms_mean": window_W.tolist(),
        "chunk_ms_median": cost_N.tolist(),
        "cache_bytes": bytes_RN[0].tolist(),
    }


def print_windows(metrics: dict[str, Any]) -> None:
    size = metrics["window_chunks"]
    print(f"\n{'window of ' + str(size) + ' chunks':20}{'mean ms/chunk':>14}   cache KiB per chunk")
    for index, mean in enumerate(metrics["window_chunk_ms_mean"]):
        held = " ".join(f"{count / 1024:.0f}" for count in metrics["cache_bytes"][index * size : (index + 1) * size])
        print(f"{index + 1:<20}{mean:14.1f}   {held}")
    print(f"last over first full window: {metrics['last_over_first_window_cost']:.3f}")


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = options(__doc__, repetitions=10)
    parser.add_argument("--chunks", type=int, default=50, help="chunks per episode (default: 50)")
    choices = ("restart", "slide")
    parser.add_argument("--window-full", default="restart", choices=choices, help="what a full window does")
    args = parser.parse_args(arguments)
    try:
        metrics = measure(**vars(args))
    except ValueError as error:
        parser.error(str(error))
    print_windows(metrics)
    name = "long_episode" if args.window_full == "restart" else "long_episode_sliding"
    write_result(result_name(name, args.device), metrics, args.seed, command_line("long_episode", arguments))


if __name__ == "__main__":
    main()
