"""Success in closed loop on paired scenes: what is evaluated in the simulator, and what of it is compared."""

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import t

import lerobot_wam.plugin  # noqa: F401  (registers the policy and the environment)
from lerobot_wam.report.statistics import wilson_interval
from lerobot_wam.training.loop import swapped

FEW = 10
"""Successes of two policies together, below which their ratio says nothing."""
MANY = 100.0
"""A ratio from which on it counts as infinite: no hundreds of episodes tell them apart."""


def evaluate(policy: Path, arm: str, episodes: int, seed: int, folder: Path, flags: Sequence[str] = ()) -> list[bool]:
    """Run `lerobot-eval` on an arm's instructed tasks; the success of each episode, the i-th of scene seed + i.

    What a folder holds is not evaluated again. `flags` are further flags of the program.
    """
    own = [
        f"--policy.embodiment=wam_sim_{arm}",
        "--env.type=wam_tabletop",
        f"--env.arm={arm}",
        f"--eval.n_episodes={episodes}",
        f"--eval.batch_size={min(48, episodes)}",
        f"--seed={seed}",
    ]
    return [bool(success) for success in tried(policy, folder, [*own, *flags])["successes"]]


def tried(policy: Path, folder: Path, flags: Sequence[str]) -> dict[str, Any]:
    """Run `lerobot-eval`, unless the folder holds what came of it; returns lists with a number for each episode.

    Raises:
        ValueError: The folder holds what came of other flags.
    """
    result = folder / "eval_info.json"
    unchanged(folder / "asked.json", [str(policy), *flags], begun=result.is_file())
    if not result.is_file():
        from lerobot.scripts import lerobot_eval

        play = lerobot_eval.eval_policy_all  # films the first ten episodes, which costs more than playing them
        with (
            swapped(sys, argv=["lerobot-eval", f"--policy.path={policy}", f"--output_dir={folder}", *flags]),
            swapped(lerobot_eval, eval_policy_all=lambda **given: play(**given | {"max_episodes_rendered": 0})),
        ):
            lerobot_eval.eval_main()
    return json.loads(result.read_text())["per_task"][0]["metrics"]


def unchanged(note: Path, asked: Sequence[str], *, begun: bool) -> None:
    """Note what was asked for, so that what is kept of it is never taken for the answer to something else.

    Args:
        note: The file to note it in.
        asked: What is asked for.
        begun: Whether anything is kept already.

    Raises:
        ValueError: What is kept is of something else.
    """
    if begun and note.is_file() and (before := json.loads(note.read_text(encoding="utf-8"))) != list(asked):
        odd = sorted(set(before) ^ set(asked))
        raise ValueError(f"{note.parent} was made with other flags ({', '.join(odd)}): remove it, or undo the change")
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(list(asked)), encoding="utf-8")


def rate(successes: Sequence[bool]) -> dict[str, Any]:
    """Success with its Wilson interval."""
    return {
        "successes": sum(successes),
        "n_episodes": len(successes),
        "success_rate": sum(successes) / len(successes),
        "success_wilson_95": wilson_interval(sum(successes), len(successes)),
    }


def outcomes(successes: Sequence[bool]) -> dict[str, Any]:
    """`rate`, and under "outcomes" one digit a scene, in their order, 1 for a success: what `trial` reads."""
    return rate(successes) | {"outcomes": "".join(str(int(success)) for success in successes)}


def trial(found: Mapping[str, Any]) -> list[bool]:
    """The success of each scene that `outcomes` kept."""
    return [digit == "1" for digit in found["outcomes"]]


def compared(before: Sequence[float], after: Sequence[float]) -> dict[str, float | tuple[float, float]]:
    """The change between two success rates on the same scenes, with its 95 % interval (normal, paired).

    The interval is over scenes alone: it holds for these very policies, see `contrast` for others trained alike.

    Args:
        before: Success of each scene, 0 to 1: a mean where several policies tried it.
        after: The same for other policies.
    """
    changes = [b - a for a, b in zip(before, after, strict=True)]
    mean, half = statistics.fmean(changes), 1.96 * statistics.stdev(changes) / math.sqrt(len(changes))
    return {"scenes": len(changes), "change": mean, "change_95": (mean - half, mean + half)}


def contrast(
    before: Sequence[Sequence[float]], after: Sequence[Sequence[float]], *, matched: bool = False
) -> dict[str, float | tuple[float, float] | None]:
    """How much more often, and how many times as often, one policy succeeds than another, with 95 % intervals.

    They hold for other scenes and for other trainings, since another training gives another policy (`_interval`). The
    ratio's has every ratio r at which `after` less r times `before` may be 0 (Fieller). To a policy that never succeeds
    it is infinite; where both together have less than `FEW` successes, it has no interval (None).

    Args:
        before: Success in the same scenes for each training of one policy, [trainings][scenes], at least two scenes.
        after: The same of another; it may have another number of trainings.
        matched: The trainings form pairs that differ in nothing else.
    """
    old, new = np.asarray(before, float), np.asarray(after, float)
    change = float(new.mean() - old.mean())
    enough = old.sum() + new.sum() >= FEW

    def less(ratio: float) -> tuple[float, float]:
        return _interval([new - ratio * old] if matched else [new, -ratio * old])

    def root(bound: int) -> float:
        if less(MANY)[bound] >= 0:
            return math.inf
        return float(brentq(lambda ratio: less(ratio)[bound], 0, MANY)) if less(0)[bound] > 0 else 0.0

    return {
        "scenes": old.shape[1],
        "change": change,
        "change_95": less(1),
        "ratio": float(new.mean() / old.mean()) if old.any() else math.inf if new.any() else 1.0,
        "ratio_95": (root(0), root(1)) if enough else None,
    }


def _interval(groups: Sequence[np.ndarray]) -> tuple[float, float]:
    """95 % interval of the sum of the groups' means, each [trainings, scenes].

    Scenes, the same for all groups, and each group's trainings are random and crossed. The variance of the sum is that
    of the trainings' means, plus that of the scenes' means, less what both have in them: single trials. Student's t has
    the degrees of freedom of Satterthwaite (1946). One training alone says nothing about others: it is taken as given.
    """
    count = groups[0].shape[1]
    mean, by_scenes = sum(group.mean() for group in groups), sum(group.mean(axis=0) for group in groups)
    parts = [(float(np.var(by_scenes, ddof=1)) / count, count - 1)]
    trials = 0.0
    for group in groups:
        freedom = len(group) - 1
        if freedom:
            parts.append((group.mean(axis=1).var(ddof=1) / len(group), freedom))
            rest = group - group.mean(axis=0) - group.mean(axis=1, keepdims=True) + group.mean()
            trials += (rest**2).sum() / (freedom * (count - 1)) / group.size
    scenes, trainings = parts[0][0], sum(variance for variance, _ in parts[1:])
    if not (total := scenes + trainings):
        return float(mean), float(mean)
    freedom = total**2 / sum(variance**2 / own for variance, own in parts)
    half = t.ppf(0.975, freedom) * math.sqrt(max(total - trials, scenes, trainings))
    return float(mean - half), float(mean + half)


def by_scene(trials: Sequence[Sequence[bool]]) -> list[float]:
    """Mean success of each scene over several policies."""
    return [statistics.fmean(scene) for scene in zip(*trials, strict=True)]
