"""What it costs that a chunk takes time to compute, and what acting meanwhile gives back.

The simulated arm is driven by a trained policy. Each chunk is held back for a latency, in which the simulator's clock
goes on: at 10 Hz 300 ms are 3 control steps. Four ways to live with that, on the same scenes from the same noise:

- synchronous: the arm keeps its last target until the chunk is there, then executes all of it.
- switch, blend, guide: `OverlappedLoop`; the arm goes on with the old chunk and changes over to the new one (see
  docs/deployment.md).

Measured over each episode: strict success; jerk, the mean absolute third difference of the commanded targets (rad/s^3);
and the share of control steps at which no action was due, so that the arm kept its last target. How long a chunk
really takes to compute changes nothing. Episodes are kept in --folder, and what is there is not done again.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from tqdm import tqdm

import lerobot_wam.plugin  # noqa: F401  (registers the policy)
from benchmarks.common import command_line, write_result
from benchmarks.paired import compared, rate
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.report.charts import Series, chart_grid, line_chart
from lerobot_wam.runtime.overlap import Join, OverlappedLoop
from lerobot_wam.runtime.session import Runtime
from lerobot_wam.runtime.state import Observation
from lerobot_wam.sim.env import TabletopEnv

SYNCHRONOUS = "synchronous"
WAYS = (SYNCHRONOUS, *get_args(Join))


class Outcome(NamedTuple):
    """One episode."""

    success: bool
    jerk: float
    waited: float


class SynchronousLoop:
    """The closed loop that stands still while it computes: `Runtime.act`, `delay` control steps late."""

    def __init__(self, runtime: Runtime, seed: int, delay: int, category: int) -> None:
        self.runtime, self.delay = runtime, delay
        self.session = runtime.new_session(seed, category)
        self.waiting = 0
        self.held: torch.Tensor | None = None

    def act(self, observation: Observation) -> torch.Tensor | None:
        """Return the action of this control step; None while the chunk is held back."""
        if self.waiting == 0 and not self.session.queue:
            (self.held,) = self.runtime.act([self.session], [observation])
            self.waiting = self.delay
        if self.waiting > 0:
            self.waiting -= 1
            return None
        if self.held is not None:
            action, self.held = self.held, None
            return action
        return self.runtime.act([self.session], [observation])[0]


def observe(policy: WAMPolicy, env: TabletopEnv, seen: Mapping[str, Any]) -> Observation:
    """What an environment shows, as the policy sees it."""
    batch: dict[str, Any] = {
        f"observation.images.{camera}": torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255
        for camera, image in seen["pixels"].items()
    }
    batch |= {"observation.state": torch.from_numpy(seen["agent_pos"])[None], "task": [env.task_description]}
    return policy._observations(batch)[0]


def jerk(targets: np.ndarray, fps: float) -> float:
    """Mean absolute third difference of targets [T, A], in their unit per second cubed; nan for fewer than 4."""
    return float(np.abs(np.diff(targets, n=3, axis=0)).mean() * fps**3) if len(targets) > 3 else math.nan


def drive(policy: WAMPolicy, env: TabletopEnv, way: str, delay: int, seed: int, worker: Executor) -> Outcome:
    """Run episode `seed` to its end."""
    runtime = policy.runtime
    loop: SynchronousLoop | OverlappedLoop
    if way == SYNCHRONOUS:
        loop = SynchronousLoop(runtime, seed, delay, policy.category)
    else:
        loop = OverlappedLoop(runtime, seed, delay, way, worker, policy.category)  # type: ignore[arg-type]
    seen, info = env.reset(seed=seed)
    target, targets, waited, over = seen["agent_pos"], [], 0, False
    while not over:
        action = loop.act(observe(policy, env, seen))
        waited += action is None
        target = target if action is None else action.numpy()
        targets.append(target)
        seen, _, terminated, truncated, info = env.step(target)
        over = terminated or truncated
    return Outcome(bool(info["is_success"]), jerk(np.stack(targets), env.metadata["render_fps"]), waited / len(targets))


def kept(file: Path) -> list[Outcome]:
    """The episodes that a file holds, in order; a line that was cut off is none."""
    lines = file.read_text().splitlines() if file.is_file() else []
    return [Outcome(**json.loads(line)) for line in lines if line.endswith("}")]


def episodes(
    policy: WAMPolicy, env: TabletopEnv, way: str, delay: int, seeds: Sequence[int], file: Path, worker: Executor
) -> list[Outcome]:
    """The outcome of every seed; those that `file` lacks are run and added to it."""
    done = kept(file)[: len(seeds)]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as out:
        for outcome in done:
            out.write(json.dumps(outcome._asdict()) + "\n")
        for seed in seeds[len(done) :]:
            done.append(drive(policy, env, way, delay, seed, worker))
            out.write(json.dumps(done[-1]._asdict()) + "\n")
            out.flush()
    return done


def summary(outcomes: Sequence[Outcome], synchronous: Sequence[Outcome]) -> dict[str, Any]:
    """Success, jerk and waiting of one way at one latency, beside the synchronous way at the same latency."""
    jerks = [outcome.jerk for outcome in outcomes if math.isfinite(outcome.jerk)]
    found = rate([outcome.success for outcome in outcomes]) | {
        "jerk_rad_per_s3": statistics.fmean(jerks),
        "jerk_rad_per_s3_sem": statistics.stdev(jerks) / math.sqrt(len(jerks)),
        "waited_share": statistics.fmean(outcome.waited for outcome in outcomes),
    }
    if outcomes is not synchronous:
        found["against_synchronous"] = compared([s.success for s in synchronous], [o.success for o in outcomes])
    return found


def measure(
    policy: WAMPolicy, env: TabletopEnv, latencies: Sequence[int], ways: Sequence[str], seeds: Sequence[int], out: Path
) -> dict[str, Any]:
    """Every way at every latency in ms; the first way is what the others are compared with."""
    fps = env.metadata["render_fps"]
    cells: dict[str, dict[str, Any]] = {way: {} for way in ways}
    with ThreadPoolExecutor(1) as worker:
        for latency in tqdm(latencies, desc="latencies"):
            delay = math.ceil(latency * fps / 1000)
            trials = {
                way: episodes(policy, env, way, delay, seeds, out / f"{way}_{latency}.jsonl", worker) for way in ways
            }
            for way, outcomes in trials.items():
                cells[way][str(latency)] = summary(outcomes, trials[ways[0]])
    return cells


def charts(cells: Mapping[str, Mapping[str, Any]]) -> str:
    """Success and jerk over latency, a line per way, as one SVG file."""

    def lines(value: str, scale: float) -> Iterator[Series]:
        for way, found in cells.items():
            x, y = [float(latency) for latency in found], [scale * row[value] for row in found.values()]
            yield Series(way, x, y, muted=way == SYNCHRONOUS)

    drawn = [
        line_chart("Success (%)", list(lines("success_rate", 100)), x_label="ms"),
        line_chart("Jerk (rad/s³)", list(lines("jerk_rad_per_s3", 1)), x_label="ms"),
    ]
    return chart_grid(drawn, columns=2)


def show(cells: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a row per way and latency."""
    print(f"{'way':12} {'latency':>8} {'success':>9} {'95 %':>11} {'jerk':>8} {'waited':>7}")
    for way, found in cells.items():
        for latency, row in found.items():
            low, high = row["success_wilson_95"]
            count = f"{row['successes']}/{row['n_episodes']}"
            print(
                f"{way:12} {latency:>5} ms {count:>9} {100 * low:>5.0f}-{100 * high:.0f} % "
                f"{row['jerk_rad_per_s3']:>8.1f} {100 * row['waited_share']:>5.0f} %"
            )


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="trained policy of the simulated arm")
    parser.add_argument("--arm", default="viperx", help="default: viperx")
    parser.add_argument("--latencies", default="0,100,300,600", help="ms (default: 0,100,300,600)")
    parser.add_argument("--ways", default=",".join(WAYS), help=f"default: {','.join(WAYS)}")
    parser.add_argument("--episodes", type=int, default=120, help="of each way and latency (default: 120)")
    parser.add_argument("--episode-length", type=int, help="time limit in control steps (default: the task's)")
    parser.add_argument("--seed", type=int, default=100_000, help="first scene (default: 100000)")
    parser.add_argument("--smoothing", action="store_true", help="smooth every chunk's actions")
    parser.add_argument("--folder", type=Path, default=Path("outputs/injected_latency"), help="default: %(default)s")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    policy = WAMPolicy.from_pretrained(args.checkpoint).eval()
    policy.config.smoothing = args.smoothing
    env = TabletopEnv(arm=args.arm, image_size=policy.config.image_size[0], episode_length=args.episode_length)
    latencies = [int(latency) for latency in args.latencies.split(",")]
    seeds = range(args.seed, args.seed + args.episodes)
    cells = measure(policy, env, latencies, args.ways.split(","), seeds, args.folder)
    show(cells)
    (args.folder / "injected_latency.svg").write_text(charts(cells))
    metrics = {
        "control_hz": env.metadata["render_fps"],
        "chunk_steps": policy.config.chunk_steps,
        "num_inference_steps": policy.config.num_inference_steps,
        "smoothing": args.smoothing,
        "time_limit_steps": env._max_episode_steps,
        "by_way_and_latency_ms": cells,
    }
    write_result("injected_latency", metrics, args.seed, command_line("injected_latency", arguments))


if __name__ == "__main__":
    main()
