"""Does a server stay whole and small? Ten thousand damaged messages, and two hours of control.

First, damaged messages come in on many connections while a robot is driven, whose every action must be bitwise that of
the same policy near by. Then a robot is driven for the control steps of two hours, as fast as they can be computed,
in episodes of half a minute and with a new connection every ten minutes, and the memory of this process, which holds
server, model and client, must not grow. The policy has random weights, and frames are random.
"""

import argparse
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.common import ARM, CAMERA, JOINTS, SIZE, TASK, command_line, nano_policy, write_result
from benchmarks.fuzzing import attack, requests
from benchmarks.served import served
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.serving.client import WAMClient

TINY: dict[str, Any] = {"dim": 64, "num_heads": 2, "num_layers": 1, "ffn_dim": 64, "num_inference_steps": 2}
EPISODE_S, CONNECTION_S = 30, 600
PATIENCE_S = 60.0
"""Until a chunk counts as lost: the machine may be busy with other things."""
WARM_UP = 0.2
"""Share of a drive after which memory must not grow: until then allocators fill their pools."""
LARGEST_GROWTH_MB = 16.0
"""Over the rest of the drive."""


def see(rng: np.random.Generator) -> tuple[dict[str, Any], np.ndarray, str]:
    picture = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    return {CAMERA: picture}, rng.normal(size=JOINTS).astype(np.float32), TASK


def tiny_policy(seed: int) -> WAMPolicy:
    """A policy whose every weight counts: in a new one the last layers are zero and hide what it saw."""
    policy = nano_policy("cpu", seed, **TINY).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return policy


def under_attack(messages: int, seed: int) -> dict[str, Any]:
    """Send damaged messages while a robot is driven.

    Raises:
        RuntimeError: An action differs from that of the policy near by.
    """
    near, rng, answers = tiny_policy(seed), np.random.default_rng(seed), Counter[str]()
    spoken, steps = requests(ARM, (SIZE, SIZE)), 0
    with served(tiny_policy(seed)) as server, WAMClient(server.url, timeout_s=PATIENCE_S) as robot:
        damaged = (server.url, spoken, messages, random.Random(seed))
        attacker = threading.Thread(target=lambda: answers.update(attack(*damaged)))
        attacker.start()
        while attacker.is_alive():
            images, state, task = see(rng)
            view = (torch.from_numpy(images[CAMERA]).float() / 255).permute(2, 0, 1).contiguous()[None]
            batch = {CAMERA: view, "observation.state": torch.from_numpy(state)[None], "task": [task]}
            if not np.array_equal(robot.act(images, state, task), near.select_action(batch)[0].numpy()):
                raise RuntimeError(f"step {steps} of the good robot differs from what it does near by")
            steps += 1
            time.sleep(1 / ARM.fps)
        held = robot.held
    return {
        "messages": messages,
        "answers": dict(sorted(answers.items())),
        "good_robot_steps": steps,
        "good_robot_steps_held": held,
        "good_robot_differences": 0,
    }


def resident_mb() -> float:
    """Memory of this process that is not swapped out."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def drive(steps: int, seed: int) -> dict[str, Any]:
    """Drive a robot for this many control steps.

    Raises:
        RuntimeError: Memory grew by more than `LARGEST_GROWTH_MB` after the warm-up.
    """
    rng, at, sizes, held = np.random.default_rng(seed), [], [], 0
    episode, connection = round(EPISODE_S * ARM.fps), round(CONNECTION_S * ARM.fps)
    sample, began = max(1, steps // 400), time.perf_counter()
    with served(tiny_policy(seed)) as server:
        bar = tqdm(total=steps, desc="control steps", disable=None)
        for first in range(0, steps, connection):
            with WAMClient(server.url, timeout_s=PATIENCE_S) as robot:
                for step in range(first, min(first + connection, steps)):
                    if step % episode == 0:
                        robot.reset()
                    robot.act(*see(rng))
                    if step % sample == 0:
                        at.append(step)
                        sizes.append(resident_mb())
                    bar.update()
                held += robot.held
        bar.close()
    wall_s = time.perf_counter() - began
    settled = np.array(at) >= WARM_UP * steps
    slope, _ = np.polyfit(np.array(at)[settled], np.array(sizes)[settled], 1)
    growth_mb = slope * (1 - WARM_UP) * steps
    if growth_mb > LARGEST_GROWTH_MB:
        raise RuntimeError(
            f"memory grew by {growth_mb:.1f} MB in {steps} steps, expected at most {LARGEST_GROWTH_MB:g}"
        )
    return {
        "control_steps": steps,
        "simulated_hours": steps / ARM.fps / 3600,
        "load_average": os.getloadavg()[0],  # 1 is this process alone on its core
        "times_real_time": steps / ARM.fps / wall_s,
        "episodes": -(-steps // episode),
        "connections": -(-steps // connection),
        "steps_held": held,
        "rss_mb_first": sizes[0],
        "rss_mb_after_warm_up": float(np.array(sizes)[settled][0]),
        "rss_mb_last": sizes[-1],
        "rss_mb_largest": max(sizes),
        "rss_mb_per_simulated_hour": float(slope * ARM.fps * 3600),
        "rss_mb_largest_growth_allowed": LARGEST_GROWTH_MB,
    }


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000, help="damaged messages (default: 10000)")
    parser.add_argument("--steps", type=int, default=72_000, help="control steps (default: 72000, 2 h at 10 Hz)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, frames and damage (default: 0)")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    metrics = {"under_attack": under_attack(args.messages, args.seed), "drive": drive(args.steps, args.seed)}
    for part, found in metrics.items():
        print(f"\n{part}")
        for name, value in found.items():
            print(f"  {name:32}{value if not isinstance(value, float) else format(value, '.2f')}")
    write_result("soak", metrics, args.seed, command_line("soak", arguments))


if __name__ == "__main__":
    main()
