"""What a training step of each contestant costs, in one run: "as much time for all" is then a number of steps.

A cell's number of steps is fixed beforehand by these costs, so a cell repeats exactly, whatever else the machine does.
All train on the scale's smallest recording through the very function that the claims train with; a step's time is
that of LeRobot's loop, from the end of one step to the end of the next, so it holds the fetching of its batch. The
contestants take turns of a few steps, so that noise on the machine hits all alike. The latency of a chunk is that of
the call that computes it, pre-processing included, for one robot.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from lerobot.policies import get_policy_class, make_pre_post_processors
from lerobot.scripts import lerobot_train

from benchmarks import common
from benchmarks.claims.contestants import CONTESTANTS, Contestant, Data, train
from benchmarks.claims.data import demonstrations
from benchmarks.claims.scales import NANO, SCALES, Scale
from benchmarks.step_cost import chunk_latencies, n_parameters
from lerobot_wam.training.loop import swapped

RESULT = "step_costs"


def cost_key(contestant: Contestant, size: str = NANO) -> str:
    """Under which name the costs of a contestant are kept; where it starts from does not change them."""
    return contestant.network if size == NANO else f"{contestant.network}_{size}"


def load_costs(scale: str) -> dict[str, Any]:
    """Return what was measured at a scale, by `cost_key`.

    Raises:
        FileNotFoundError: Nothing was.
    """
    path = common.RESULTS / "claims" / scale / f"{RESULT}.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: run python -m benchmarks.claims.budget --scale={scale} on a quiet machine")
    return json.loads(path.read_text(encoding="utf-8"))["metrics"]["contestants"]


def steps_for(contestant: Contestant, seconds: float, costs: Mapping[str, Any], size: str = NANO) -> int:
    """How many optimizer steps of a contestant take so long, by the measured median."""
    return max(1, round(1000 * seconds / costs[cost_key(contestant, size)]["train_step_ms_p50"]))


def measure(scale: Scale, turns: int, steps: int, repetitions: int) -> dict[str, Any]:
    """Train all contestants in turns of `steps` + 1 steps, of which the first is not counted, then let them act."""
    sized = {
        cost_key(contestant, size): (contestant, flags)
        for contestant in CONTESTANTS.values()
        if not contestant.starts_from_prior
        for size, flags in (scale.sizes.items() if contestant.policy == "wam" else [(NANO, ())])
    }
    data = Data(*demonstrations(scale, scale.labels[0]))
    times: dict[str, list[float]] = {key: [] for key in sized}
    with TemporaryDirectory() as folder:
        policies = {}
        for turn in range(turns):
            for key, (contestant, flags) in sized.items():
                with step_milliseconds() as found:
                    policies[key] = train(
                        contestant,
                        data,
                        steps=steps + 1,
                        batch_size=scale.batch_size,
                        seed=turn,
                        folder=Path(folder) / f"{key}_{turn}",
                        device=scale.device,
                        flags=flags,
                    )
                times[key] += found
        loaded = {key: acting(policy, scale.device) for key, policy in policies.items()}
    actors = {key: act for key, (act, _) in loaded.items()}
    latencies = chunk_latencies(actors, repetitions, scale.device, torch.Generator().manual_seed(0))
    return {
        "device": scale.device,
        "threads": torch.get_num_threads(),
        "batch_size": scale.batch_size,
        "turns": turns,
        "steps_per_turn": steps,
        "contestants": {
            key: {
                "n_parameters": loaded[key][1],
                "train_step_ms_p50": float(np.median(times[key])),
                "train_step_ms_p90": float(np.quantile(times[key], 0.9)),
                "chunk_latency_p50_ms": float(np.median(latencies[key])),
                "chunk_latency_p95_ms": float(np.quantile(latencies[key], 0.95)),
            }
            for key in sized
        },
    }


@contextmanager
def step_milliseconds() -> Iterator[list[float]]:
    """Time LeRobot's training steps, each from the end of the one before; the first, which warms up, has none."""
    step, found, ended = lerobot_train.update_policy, [], [0.0]

    def timed(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)  # it reads the loss, so the device is done
        now = time.perf_counter()
        if ended[-1]:
            found.append(1000 * (now - ended[-1]))
        ended.append(now)
        return result

    with swapped(lerobot_train, update_policy=timed):
        yield found


def acting(policy: Path, device: str) -> tuple[Callable[[dict[str, Any]], torch.Tensor], int]:
    """Load a checkpoint; returns what acts on an observation, and the network's parameters that learn."""
    kind = json.loads((policy / "config.json").read_text())["type"]
    loaded = get_policy_class(kind).from_pretrained(policy).to(device).eval()
    loaded.reset()
    before, _ = make_pre_post_processors(
        loaded.config, str(policy), preprocessor_overrides={"device_processor": {"device": device}}
    )
    return lambda observation: loaded.select_action(before(observation)), n_parameters(loaded)


def show(metrics: Mapping[str, Any]) -> None:
    """Print what matters."""
    print(f"\n{'':24}{'parameters':>12}{'step p50 ms':>13}{'chunk p50 ms':>14}")
    for key, row in metrics["contestants"].items():
        print(f"{key:24}{row['n_parameters']:12,}{row['train_step_ms_p50']:13.1f}{row['chunk_latency_p50_ms']:14.1f}")


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, required=True, help="whose sizes, batches and device")
    parser.add_argument("--turns", type=int, default=5, help="of every contestant (default: 5)")
    parser.add_argument("--steps", type=int, default=12, help="counted steps of a turn (default: 12)")
    parser.add_argument("--repetitions", type=int, default=30, help="chunks timed (default: 30)")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    metrics = measure(SCALES[args.scale], args.turns, args.steps, args.repetitions)
    show(metrics)
    common.write_result(f"claims/{args.scale}/{RESULT}", metrics, 0, common.command_line("claims.budget", arguments))


if __name__ == "__main__":
    main()
