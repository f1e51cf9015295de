"""Success in closed loop on paired scenes: what is evaluated in the simulator, and what of it is compared."""

import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lerobot_wam.plugin  # noqa: F401  (registers the policy and the environment)
from lerobot_wam.report.statistics import wilson_interval
from lerobot_wam.training.loop import swapped


def evaluate(policy: Path, arm: str, episodes: int, seed: int, folder: Path, flags: Sequence[str] = ()) -> list[bool]:
    """Run `lerobot-eval` on an arm's instructed tasks; the success of each episode, the i-th of scene seed + i.

    What a folder holds is not evaluated again. `flags` are further flags of the program.
    """
    result = folder / "eval_info.json"
    if not result.is_file():
        from lerobot.scripts.lerobot_eval import eval_main

        flags = [
            f"--policy.path={policy}",
            f"--policy.embodiment=wam_sim_{arm}",
            "--env.type=wam_tabletop",
            f"--env.arm={arm}",
            f"--eval.n_episodes={episodes}",
            f"--eval.batch_size={min(48, episodes)}",
            f"--seed={seed}",
            f"--output_dir={folder}",
            *flags,
        ]
        with swapped(sys, argv=["lerobot-eval", *flags]):
            eval_main()
    return [bool(success) for success in json.loads(result.read_text())["per_task"][0]["metrics"]["successes"]]


def rate(successes: Sequence[bool]) -> dict[str, Any]:
    """Success with its Wilson interval."""
    return {
        "successes": sum(successes),
        "n_episodes": len(successes),
        "success_rate": sum(successes) / len(successes),
        "success_wilson_95": wilson_interval(sum(successes), len(successes)),
    }


def compared(before: Sequence[float], after: Sequence[float]) -> dict[str, float | tuple[float, float]]:
    """The change between two success rates on the same scenes, with its 95 % interval (normal, paired).

    Args:
        before: Success of each scene, 0 to 1: a mean where several policies tried it.
        after: The same for other policies.
    """
    changes = [b - a for a, b in zip(before, after, strict=True)]
    mean, half = statistics.fmean(changes), 1.96 * statistics.stdev(changes) / math.sqrt(len(changes))
    return {"scenes": len(changes), "change": mean, "change_95": (mean - half, mean + half)}


def by_scene(trials: Sequence[Sequence[bool]]) -> list[float]:
    """Mean success of each scene over several policies."""
    return [statistics.fmean(scene) for scene in zip(*trials, strict=True)]
