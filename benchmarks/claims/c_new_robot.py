"""Claim C: thirty minutes of play move a policy to a new robot, while it keeps its skills.

A policy of three arms meets a fourth, of which it gets so many simulated minutes of play, named after what happened,
and then instructions that were never demonstrated on it. `benchmarks.adaptation` does the measuring: beside the adapted
policy, the same network with a robot's weights from scratch; and the three arms before and after.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import batched
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.adaptation import measure
from benchmarks.claims.cells import Cell
from benchmarks.claims.data import ARM, ARMS, OTHER_ARMS, PLAY, entry, first_minutes, minutes, recorded
from benchmarks.claims.findings import Finding, Report, all_of, decided, not_yet, percent, points
from benchmarks.claims.prior import train_mixture
from benchmarks.claims.runs import FIRST_SCENE
from benchmarks.claims.scales import NANO, Scale
from benchmarks.paired import contrast, rate, trial
from benchmarks.result_rows import success_interval, words
from lerobot_wam.data.recipe import MixtureRecipe
from lerobot_wam.report.charts import interval_chart
from lerobot_wam.report.page import NumberTable
from lerobot_wam.sim.episodes import NAMED_PLAY, Recipe
from lerobot_wam.training.adapt_plan import AdaptPlan

TITLE = "C · A new robot from play"
NEW_ARM = OTHER_ARMS[-1]
KNOWN_ARMS = (ARM, *OTHER_ARMS[:-1])
TASKS = "single:13,play:3"
"""What the three arms are trained on: instructions, and play that is called play."""
SHARE, LOSS = 0.5, -0.05
"""Of the known arms' success that the new one has to reach, and what these may lose."""


def cells(scale: Scale) -> list[Cell]:
    """The most play first: it decides."""
    return [
        Cell("c", cell_name(length, seed), seed, partial(_measured, scale, length, seed))
        for length in reversed(scale.play_minutes)
        for seed in scale.seeds
    ]


def cell_name(length: float, seed: int) -> str:
    """Name of a cell: minutes of play and a seed."""
    return f"{length:g}_minutes-seed_{seed}"


def known(scale: Scale) -> tuple[Path, MixtureRecipe]:
    """Return the policy of three arms, trained as far as it is not, and what it was trained on."""
    roots = [recorded(scale, f"arm-{arm}", scale.arm_episodes, Recipe(TASKS, arm, seed=ARMS)) for arm in KNOWN_ARMS]
    recipe = MixtureRecipe(tuple(entry(root) for root in roots))
    return train_mixture(scale, recipe, NANO, scale.arm_steps, 0, scale.outputs / "three_arms"), recipe


def _measured(scale: Scale, length: float, seed: int) -> dict[str, Any]:
    root, episodes = first_minutes(scale, f"play-{NEW_ARM}", length, Recipe(NAMED_PLAY, NEW_ARM, seed=PLAY))
    checkpoint, recipe = known(scale)
    plan = AdaptPlan(
        checkpoint,
        entry(root, episodes),
        scale.outputs / "adapted" / cell_name(length, seed),
        cotrain=recipe,
        steps=scale.adapt_steps,
        batch_size=scale.batch_size,
        eval_every=scale.adapt_steps // 6,
        patience=6,
        windows=scale.episodes,
        seed=seed,
        device=scale.device,
        flags=("--num_workers=0",),
    )
    return {"minutes_of_play": minutes(root, episodes)} | measure(
        [plan], NEW_ARM, KNOWN_ARMS, scale.episodes, FIRST_SCENE, scale.episodes
    )


def report(scale: Scale, records: Mapping[str, Mapping[str, Any]]) -> Report:
    """Success on the new arm and on the known ones, by minutes of play."""
    found = {
        length: [records[name]["metrics"] for seed in scale.seeds if (name := cell_name(length, seed)) in records]
        for length in scale.play_minutes
    }
    metrics = {f"{length:g}_minutes": _summary(cells) for length, cells in found.items() if cells}
    most = f"{scale.play_minutes[-1]:g}_minutes"
    case = metrics[most] if len(found[scale.play_minutes[-1]]) == len(scale.seeds) else None
    finding = _finding(f"{scale.play_minutes[-1]:g}", case)
    return Report([finding], [_table(metrics)] if metrics else [], metrics)


def _finding(minutes: str, case: Mapping[str, Any] | None) -> Finding:
    claim = f"{minutes} minutes of play move the policy to a new robot, and it keeps its skills."
    rule = (
        f"Holds where success on instructed tasks there less {100 * SHARE:.0f} % of the known arms' lies, with its "
        f"95 % interval, at 0 or above, and the change of the known arms, with its own, at {100 * LOSS:.0f} points or "
        "above; does not where one lies below."
    )
    if not case:
        return not_yet(claim, rule)
    known = case["known_arms"]
    reached = decided(case["beyond_share_of_known"]["change_95"], 0)
    return Finding(
        claim,
        rule,
        all_of((reached, decided(known["change_95"], LOSS))),
        percent(case["adapted"]),
        f"known arms {100 * known['before']:.0f} % before, {points(*known['change_95'])} after; heads from scratch on "
        f"the same play {percent(case['heads_from_scratch'])}",
    )


def _summary(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Cells of one length together; a scene of the known arms is one of any of them."""
    own = [found for cell in cells for found in cell["by_seed"].values()]
    trials = {kind: [trial(found[kind]) for found in own] for kind in ("adapted", "heads_from_scratch")}
    before, *_ = (  # no seed changes it
        [outcome for arm in KNOWN_ARMS for outcome in trial(found[arm]["before"])] for found in own
    )
    after = [[outcome for arm in KNOWN_ARMS for outcome in trial(found[arm]["after"])] for found in own]
    share = [SHARE * fmean(scene) for scene in zip(*batched(before, len(before) // len(KNOWN_ARMS)), strict=True)]
    return {kind: rate([outcome for tried in found for outcome in tried]) for kind, found in trials.items()} | {
        "adapted_against_heads_from_scratch": contrast(trials["heads_from_scratch"], trials["adapted"]),
        "beyond_share_of_known": contrast([share], trials["adapted"]),
        "known_arms": contrast([before], after) | {"before": fmean(before), "after": fmean(map(fmean, after))},
        "minutes_of_play": fmean(cell["minutes_of_play"] for cell in cells),
        "below_better_yardstick": fmean(found["adapted"]["below_better_yardstick"] for found in own),
    }


def _table(metrics: Mapping[str, Mapping[str, Any]]) -> NumberTable:
    charts = [
        interval_chart(
            f"{NEW_ARM}, {length.replace('_', ' ')} of play",
            [
                success_interval(words(kind), case[kind], strong=kind == "adapted")
                for kind in ("heads_from_scratch", "adapted")
            ],
        )
        for length, case in metrics.items()
    ]
    rows = {
        length.replace("_", " "): [
            percent(case["adapted"]),
            percent(case["heads_from_scratch"]),
            _gain(case["adapted_against_heads_from_scratch"]),
            f"{100 * case['known_arms']['before']:.0f} → {100 * case['known_arms']['after']:.0f} % "
            f"({points(*case['known_arms']['change_95'])})",
            f"{100 * case['below_better_yardstick']:.0f} %",
        ]
        for length, case in metrics.items()
    }
    return NumberTable(
        "Success by minutes of play",
        f"Instructed tasks on the {NEW_ARM}, none of which was demonstrated there, with 95 % Wilson intervals; and on "
        "the three arms known before, on the same scenes before and after.",
        ("adapted", "heads from scratch", "adapted against these", "known arms", "action error below better yardstick"),
        rows,
        charts,
    )


def _gain(case: Mapping[str, Any]) -> str:
    return f"{points(case['change'])} ({points(*case['change_95'])})"
