"""Where two-stage instructions fail: in what the arm can do, in the rules, or in the sentence?

A trained policy meets the same scenes twice: told both stages in one sentence, as the environment does; and told the
present stage alone, in a new session, as soon as the judge finds the one before done. Beside it, the scripted expert in
these scenes says what the time limit and the strict judgement leave room for. Counted: how far each episode came, and
how it ended.
"""

import argparse
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import lerobot_wam.plugin  # noqa: F401  (registers the policy)
from benchmarks.common import command_line, write_result
from benchmarks.injected_latency import observe
from benchmarks.paired import rate
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.sim.env import TabletopEnv
from lerobot_wam.sim.experts import TaskExpert

Act = Callable[[dict[str, Any]], np.ndarray]


def expert(env: TabletopEnv, seed: int) -> Act:
    """The scripted expert at the noise of recordings."""
    script, rng = TaskExpert(env.world), np.random.default_rng(seed)
    return lambda seen: script.action(env.judge) + rng.normal(0.0, 0.015, env.arm.dof)


def driven(policy: WAMPolicy, stage_by_stage: bool) -> Callable[[TabletopEnv, int], Act]:
    """The policy, told everything at once or one stage at a time."""

    def begin(env: TabletopEnv, seed: int) -> Act:
        runtime, at = policy.runtime, -1
        session = runtime.new_session(seed, policy.category)

        def act(seen: dict[str, Any]) -> np.ndarray:
            nonlocal session, at
            if stage_by_stage and at != env.judge.stage_index and env.judge.stage is not None:
                at, env.task_description = env.judge.stage_index, env.judge.stage.sentence
                session = runtime.new_session(seed, policy.category)
            return runtime.act([session], [observe(policy, env, seen)])[0].numpy()

        return act

    return begin


def measured(env: TabletopEnv, begin: Callable[[TabletopEnv, int], Act], seeds: range, title: str) -> dict[str, Any]:
    """How the episodes of these scenes went."""
    successes, steps, progress = [], [], []
    ends: Counter[str] = Counter()
    for seed in tqdm(seeds, desc=title):
        seen, _ = env.reset(seed=seed)
        act, over, count = begin(env, seed), False, 0
        while not over:
            seen, _, terminated, truncated, _ = env.step(act(seen))
            over, count = terminated or truncated, count + 1
        judge = env.judge
        end = "success" if judge.success else "another cube moved" if judge.failed else "time was up"
        ends[f"{judge.stage_index} stages done, {end}"] += 1
        successes.append(judge.success)
        steps.append(count)
        progress.append(judge.progress)
    done = {"steps_median": statistics.median(steps), "steps_max": max(steps), "progress": statistics.mean(progress)}
    return rate(successes) | done | {"ends": dict(ends.most_common())}


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="trained policy of the simulated arm")
    parser.add_argument("--arm", default="viperx", help="default: viperx")
    parser.add_argument("--episodes", type=int, default=36, help="of each kind (default: 36)")
    parser.add_argument("--episode-length", type=int, help="time limit in control steps (default: the task's)")
    parser.add_argument("--seed", type=int, default=50_000, help="first scene (default: 50000)")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    policy = WAMPolicy.from_pretrained(args.checkpoint).eval()
    seeds, size = range(args.seed, args.seed + args.episodes), policy.config.image_size[0]
    single, double = (
        TabletopEnv(task, args.arm, size, episode_length=args.episode_length) for task in ("single", "two_stage")
    )
    metrics = {
        "max_chunks": policy.config.max_chunks,
        "time_limit_steps": double._max_episode_steps,
        "expert": measured(double, expert, seeds, "expert"),
        "single_stage_tasks": measured(single, driven(policy, False), seeds, "single-stage tasks"),
        "told_at_once": measured(double, driven(policy, False), seeds, "told at once"),
        "told_stage_by_stage": measured(double, driven(policy, True), seeds, "told stage by stage"),
    }
    for name, found in metrics.items():
        print(name, found)
    write_result("two_stages", metrics, args.seed, command_line("two_stages", arguments))


if __name__ == "__main__":
    main()
