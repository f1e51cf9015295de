"""How well the tabletop's scripted experts do: every arm, its tasks, in plain, varied and unseen looks.

Twice: as recordings begin, with their noise and clean, scattered and clumsy starts, where the first attempt at each
episode counts; and as evaluations begin, from home, without noise, at the time limit.

    python -m benchmarks.tabletop_experts --arms=viperx_gripper --tasks=place,stack --looks=plain,varied
"""

import sys
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from tqdm import tqdm

from benchmarks.common import command_line, options, write_result
from benchmarks.paired import rate
from lerobot_wam.sim.arms import ARMS
from lerobot_wam.sim.env import TabletopEnv
from lerobot_wam.sim.episodes import Recipe, make_episode
from lerobot_wam.sim.experts import TaskExpert
from lerobot_wam.sim.tabletop import Tabletop

SIZE = 16
"""Edge of the images, which nobody sees (pixels)."""


def recorded(recipe: Recipe, episodes: int) -> dict[str, Any]:
    """First attempts at the episodes that a recording of this recipe would have."""
    world, attempts, steps = Tabletop(recipe.arm, recipe.fps), [], []
    for index in tqdm(range(episodes), desc=f"{recipe.arm}, {recipe.tasks}, {recipe.looks}"):
        episode, tries = make_episode(recipe, index, world)
        attempts.append(tries)
        steps.append(len(episode.actions))
    return rate([tries == 1 for tries in attempts]) | {"attempts": sum(attempts), "steps_mean": fmean(steps)}


def evaluated(recipe: Recipe, episodes: int) -> dict[str, Any]:
    """Success in an evaluation's scenes, and the steps of the longest episode."""
    env, outcomes, longest = TabletopEnv(recipe.tasks, recipe.arm, SIZE, looks=recipe.looks), [], 0
    for seed in range(recipe.seed, recipe.seed + episodes):
        env.reset(seed=seed)
        expert, over, steps = TaskExpert(env.world), False, 0
        while not over:
            _, _, terminated, truncated, info = env.step(expert.action(env.judge))
            over, steps = terminated or truncated, steps + 1
        outcomes.append(bool(info["is_success"]))
        longest = max(longest, steps)
    env.close()
    return rate(outcomes) | {"steps_max": longest}


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = options(__doc__, repetitions=96)
    parser.add_argument("--arms", default=",".join(ARMS), help="default: all")
    parser.add_argument("--tasks", help="default: single, or place,stack,tower for an arm with a gripper")
    parser.add_argument("--looks", default="plain,varied,unseen", help="default: plain,varied,unseen")
    args = parser.parse_args(arguments)
    rows = [
        {"arm": arm, "tasks": tasks, "looks": looks}
        for arm in args.arms.split(",")
        for tasks in (args.tasks or ("place,stack,tower" if ARMS[arm].gripper else "single")).split(",")
        for looks in args.looks.split(",")
    ]
    found = []
    for row in rows:
        recipe = Recipe(**row, image_size=SIZE, seed=args.seed)
        found.append(
            row | {"recording": recorded(recipe, args.repetitions), "evaluation": evaluated(recipe, args.repetitions)}
        )
        print(*row.values(), *(f"{kind} {found[-1][kind]['success_rate']:.3f}" for kind in ("recording", "evaluation")))
    write_result("tabletop_experts", {"rows": found}, args.seed, command_line("tabletop_experts", arguments))


if __name__ == "__main__":
    main()
