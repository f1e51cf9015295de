"""How well the tabletop's scripted experts do: each arm, in plain, varied and unseen looks.

Counted are attempts at the twelve tasks with the noise and the starts of recordings, where a missed attempt is drawn
anew in the same look: successes are the episodes, and the rate is episodes over attempts. And once more as evaluations
begin: from home, without noise, at the time limit.
"""

import sys
from collections.abc import Sequence

from benchmarks.common import command_line, options, write_result
from lerobot_wam.sim.env import TabletopEnv
from lerobot_wam.sim.episodes import Recipe, make_episode
from lerobot_wam.sim.experts import TaskExpert
from lerobot_wam.sim.tabletop import Tabletop

SIZE = 16
"""Edge of the images, which nobody sees (pixels)."""
ARMS = ("viperx", "so101", "panda", "ur5e")
LOOKS = ("plain", "varied", "unseen")


def recorded(arm: str, looks: str, episodes: int, seed: int) -> dict[str, float]:
    """The share of attempts that a recording keeps."""
    world, recipe = Tabletop(arm), Recipe(arm=arm, image_size=SIZE, looks=looks, seed=seed)
    attempts = sum(make_episode(recipe, index, world)[1] for index in range(episodes))
    return {"episodes": episodes, "attempts": attempts, "success_rate": episodes / attempts}


def evaluated(arm: str, looks: str, episodes: int, seed: int) -> dict[str, int]:
    """Success in an evaluation's scenes, and the steps of the longest episode."""
    env, successes, longest = TabletopEnv(arm=arm, image_size=SIZE, looks=looks), 0, 0
    for index in range(seed, seed + episodes):
        env.reset(seed=index)
        expert, over, steps = TaskExpert(env.world), False, 0
        while not over:
            _, _, terminated, truncated, info = env.step(expert.action(env.judge))
            over, steps = terminated or truncated, steps + 1
        successes += info["is_success"]
        longest = max(longest, steps)
    return {"successes": successes, "episodes": episodes, "steps_max": longest}


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = options(__doc__, repetitions=48).parse_args(arguments)
    metrics = {
        arm: {
            looks: {
                "recording": recorded(arm, looks, args.repetitions, args.seed),
                "evaluation": evaluated(arm, looks, args.repetitions, args.seed),
            }
            for looks in LOOKS
        }
        for arm in ARMS
    }
    for arm, by_looks in metrics.items():
        print(arm, by_looks)
    write_result("tabletop_experts", metrics, args.seed, command_line("tabletop_experts", arguments))


if __name__ == "__main__":
    main()
