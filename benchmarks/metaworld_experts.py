"""How well Meta-World's experts do at our control rate, and how fast its worlds run and are drawn here.

Every task is tried by its expert without noise and with the noise that recordings have, in the scenes of the
evaluation, and once more by an arm that holds still. Then the steps and images of a second are counted, beside
LeRobot's own environment of Meta-World, which steps four times as often and draws 480 pixels whatever is asked for.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

from benchmarks.common import command_line, options, write_result
from lerobot_wam.metaworld.env import MetaWorldEnv
from lerobot_wam.metaworld.episodes import Recipe
from lerobot_wam.metaworld.options import CAMERA, EPISODE_STEPS, REPEATS
from lerobot_wam.metaworld.tasks import CONTRASTS, GROUPS, Task
from lerobot_wam.metaworld.world import Expert

TIMED = "drawer-close-v3"
STILL = np.array([0.0, 0.0, 0.0, -1.0])


def tried(task: Task, episodes: int, act: Callable[[Expert], np.ndarray]) -> dict[str, object]:
    """Successes, their steps, and progress of `episodes` episodes of one task."""
    env, steps, progress = MetaWorldEnv(task.name, image_size=8), [], []
    for seed in range(episodes):
        env.reset(seed=seed)
        expert, count = Expert(env.world), 0
        while not env.world.success and count < EPISODE_STEPS:
            env.world.step(act(expert))
            count += 1
        progress.append(env.task_progress)
        if env.world.success:
            steps.append(count)
    env.close()
    mean_steps = statistics.mean(steps) if steps else None
    return {"successes": len(steps), "mean_steps": mean_steps, "mean_progress": statistics.mean(progress)}


def rate(work: Callable[[], object], repetitions: int) -> float:
    """How often a second of this process's time `work` is done."""
    work()
    started = time.process_time()
    for _ in range(repetitions):
        work()
    return repetitions / (time.process_time() - started)


def speed(repetitions: int, native_repetitions: int) -> dict[str, float]:
    """Steps and images a second of CPU time, here and in LeRobot's own environment."""
    from lerobot.envs.metaworld import MetaworldEnv

    env = MetaWorldEnv(TIMED)
    env.reset(seed=0)

    def step() -> None:
        if env.world._environment.curr_path_length > 500 - REPEATS:
            env.world.reset([0])
        env.world.step(STILL)

    found = {"control_steps_per_s_without_images": rate(step, repetitions)}
    for size in (64, 128):
        found[f"images_per_s_{size}px"] = rate(partial(env.world.image, size), repetitions)
    env.close()
    native = MetaworldEnv(TIMED, obs_type="pixels_agent_pos")
    native.reset(seed=0)
    found["lerobot_environment_steps_per_s"] = rate(lambda: native.step(STILL.astype(np.float32)), native_repetitions)
    native.close()
    return found


def main(arguments: Sequence[str]) -> None:
    args = options(__doc__, repetitions=10).parse_args(arguments)
    episodes, recipe = args.repetitions, Recipe()
    rng = np.random.default_rng(args.seed)

    def trembling(expert: Expert) -> np.ndarray:
        return expert.action() + recipe.noise * np.append(rng.normal(size=3), 0.0)

    held_out = {unseen for _, unseen in CONTRASTS}
    tasks: dict[str, dict[str, Any]] = {}
    for task in GROUPS["all"]:
        tasks[task.name] = {
            "instruction": task.instruction,
            "held_out": task.name in held_out,
            "goal_marked": task.marked,
            "expert": tried(task, episodes, Expert.action),
            "expert_with_noise": tried(task, episodes, trembling),
            "holding_still": tried(task, episodes, lambda _: STILL),
        }
        row = tasks[task.name]
        print(
            task.name, *(row[who]["successes"] for who in ("expert", "expert_with_noise", "holding_still")), flush=True
        )
    write_result(
        "metaworld_experts",
        {
            "metaworld": version("metaworld"),
            "episodes_per_task": episodes,
            "time_limit_control_steps": EPISODE_STEPS,
            "noise": recipe.noise,
            "camera": CAMERA,
            "tasks": tasks,
            "cpu_time": speed(20 * episodes, 2 * episodes),
        },
        args.seed,
        command_line("metaworld_experts", arguments),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
