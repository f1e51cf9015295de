"""One server, 1 to 8 robots: how long does a chunk take, and how many come in a second? Near against far, in one run.

Near, the policy acts for N robots as one batch of `select_action`. Far, N clients in threads of this process drive
their robots through one server, by websocket on the loopback: first each at its control rate, which gives the latency
that a robot sees, then as fast as they can, which gives the throughput. A chunk's latency is what the control loop
waits for it; far, that includes sending the frame, the queue and the batch that it is computed in. The policy is the
nano preset with random weights; frames are random. Server, model and clients share the core.
"""

import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.common import (
    ARM,
    CAMERA,
    JOINTS,
    SIZE,
    TASK,
    command_line,
    nano_policy,
    options,
    result_name,
    write_result,
)
from benchmarks.served import served
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.serving.client import WAMClient

ROBOTS = (1, 2, 4, 8)


def near(policy: WAMPolicy, robots: int, chunks: int, rng: torch.Generator) -> dict[str, Any]:
    """N robots beside the model, as fast as they can."""
    policy.reset()
    waits, began = [], time.perf_counter()
    for step in range(chunks * policy.config.chunk_steps):
        frames = torch.rand(robots, 3, SIZE, SIZE, generator=rng)
        states = torch.randn(robots, JOINTS, generator=rng)
        started = time.perf_counter()
        policy.select_action({CAMERA: frames, "observation.state": states, "task": [TASK] * robots})
        if step % policy.config.chunk_steps == 0:
            waits.append(time.perf_counter() - started)
    return _summary(waits, robots * chunks, time.perf_counter() - began)


def far(url: str, robots: int, chunks: int, fps: float | None, seed: int) -> dict[str, Any]:
    """N robots at a server, at a control rate or as fast as they can."""
    waits: list[float] = []
    ready = threading.Barrier(robots + 1)

    def drive(number: int) -> None:
        rng = np.random.default_rng([seed, number])
        with WAMClient(url, timeout_s=60) as client:
            ready.wait()
            # Not all at the same moment.
            due = time.perf_counter() + (0.0 if fps is None else number / robots * ARM.chunk_steps / fps)
            for _ in range(chunks * ARM.chunk_steps):
                picture = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
                state, last = rng.normal(size=JOINTS).astype(np.float32), client.chunk
                if fps is not None:
                    time.sleep(max(0.0, due - time.perf_counter()))
                    due = max(due, time.perf_counter()) + 1 / fps
                started = time.perf_counter()
                client.act({CAMERA: picture}, state, TASK)
                if client.chunk is not last:
                    waits.append(time.perf_counter() - started)

    threads = [threading.Thread(target=drive, args=[number]) for number in range(robots)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return _summary(waits, len(waits), time.perf_counter() - began)


def _summary(waits: list[float], chunks: int, seconds: float) -> dict[str, Any]:
    p50, p99 = 1000 * np.percentile(waits, [50, 99])
    return {
        "n_chunks": chunks,
        "chunk_latency_p50_ms": float(p50),
        "chunk_latency_p99_ms": float(p99),
        "chunks_per_s": chunks / seconds,
    }


def measure(device: str, threads: int, repetitions: int, seed: int) -> dict[str, Any]:
    """Measure `repetitions` chunks of every robot: near, far at the control rate, and far at full speed."""
    torch.set_num_threads(threads)
    rows: dict[str, dict[str, Any]] = {"near": {}, "far_at_control_rate": {}, "far_at_full_speed": {}}
    rng, beside = torch.Generator().manual_seed(seed), nano_policy(device, seed).eval()
    near(beside, 1, beside.config.max_chunks, rng)  # a warm-up, like the server's own
    with served(nano_policy(device, seed), max_batch=max(ROBOTS)) as server:
        for robots in ROBOTS:
            rows["near"][str(robots)] = near(beside, robots, repetitions, rng)
            rows["far_at_control_rate"][str(robots)] = far(server.url, robots, repetitions, ARM.fps, seed)
            rows["far_at_full_speed"][str(robots)] = far(server.url, robots, repetitions, None, seed)
    return {
        "device": device,
        "threads": threads,
        "chunks_per_robot": repetitions,
        "load_average": os.getloadavg()[0],  # 1 is this process alone on its core
        "control_rate_hz": ARM.fps,
        "chunk_steps": beside.config.chunk_steps,
        "num_inference_steps": beside.config.num_inference_steps,
        **rows,
    }


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = options(__doc__, repetitions=40).parse_args(arguments)
    metrics = measure(**vars(args))
    for kind in ("near", "far_at_control_rate", "far_at_full_speed"):
        print(f"\n{kind.replace('_', ' '):24}{'p50 ms':>9}{'p99 ms':>9}{'chunks/s':>10}")
        for robots, row in metrics[kind].items():
            p50, p99, rate = (row[name] for name in ("chunk_latency_p50_ms", "chunk_latency_p99_ms", "chunks_per_s"))
            print(f"{robots:>8} robots         {p50:9.1f}{p99:9.1f}{rate:10.1f}")
    write_result(result_name("serving", args.device), metrics, args.seed, command_line("serving", arguments))


if __name__ == "__main__":
    main()
