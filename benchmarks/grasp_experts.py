"""How often the experts of the arms with a gripper succeed at the first attempt, under the noise of a recording.

An episode is one that `lerobot-wam record` writes: clean starts, scattered and clumsy ones, and noise on every action.

    python -m benchmarks.grasp_experts --arms viperx_gripper --tasks place,stack --looks plain,varied
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from benchmarks.common import command_line, write_result
from lerobot_wam.report.statistics import wilson_interval
from lerobot_wam.sim.episodes import Recipe, make_episode
from lerobot_wam.sim.tabletop import Tabletop


def first_attempts(recipe: Recipe, episodes: int) -> dict[str, float | str]:
    """Success of the first attempt at each of `episodes` episodes, with its interval; the mean length of those kept."""
    world, attempts, steps = Tabletop(recipe.arm, recipe.fps), [], []
    for index in tqdm(range(episodes), desc=f"{recipe.arm} {recipe.tasks} {recipe.looks}"):
        episode, tries = make_episode(recipe, index, world)
        attempts.append(tries)
        steps.append(len(episode.actions))
    successes = attempts.count(1)
    low, high = wilson_interval(successes, episodes)
    return {
        "arm": recipe.arm,
        "tasks": recipe.tasks,
        "looks": recipe.looks,
        "episodes": episodes,
        "success": successes / episodes,
        "success_low": low,
        "success_high": high,
        "mean_steps": float(np.mean(steps)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every arm on every group of tasks in every look, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default="viperx_gripper,panda_gripper", help="default: those with a gripper")
    parser.add_argument("--tasks", default="place,stack,tower", help="default: place,stack,tower")
    parser.add_argument("--looks", default="plain", help="default: plain")
    parser.add_argument("--episodes", type=int, default=60, help="of each (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes (default: 0)")
    parser.add_argument("--name", default="grasp_experts", help="of the result (default: grasp_experts)")
    args = parser.parse_args(arguments)
    rows = [
        first_attempts(Recipe(tasks, arm, image_size=16, seed=args.seed, looks=looks), args.episodes)
        for arm in args.arms.split(",")
        for tasks in args.tasks.split(",")
        for looks in args.looks.split(",")
    ]
    for row in rows:
        print(row)
    used = sys.argv[1:] if arguments is None else arguments
    write_result(args.name, {"rows": rows}, args.seed, command_line("grasp_experts", used))


if __name__ == "__main__":
    main()
