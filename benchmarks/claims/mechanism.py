"""Mechanism: what ours owes to each of its parts, and what goes wrong in unseen tasks.

Claim A's policy at a few demonstrations, once whole and then without one part after the other, for as many steps:
without the prior, the video loss, both, the coupling of the two noise levels, or the auxiliary behaviour-cloning loss.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.claims.cells import Cell
from benchmarks.claims.findings import Report, by_change, points
from benchmarks.claims.mistakes import ENDINGS, endings
from benchmarks.claims.runs import FIRST_SCENE, Run, conditions, measured, steps, trained
from benchmarks.claims.scales import Scale
from benchmarks.claims.summaries import against, against_table, all_seeds, by_condition, grouped, success, success_table
from benchmarks.result_rows import words
from lerobot_wam.report.page import NumberTable

TITLE = "Mechanism · What the parts are worth"
WHOLE = "whole"
PARTS = {
    "no_prior": "the prior",
    "no_video_loss": "the video loss",
    "neither": "the prior and the video loss together",
    "independent_noise": "coupled noise",
    "no_cloning": "the behaviour-cloning loss",
}
"""Variant -> what it lacks."""
WORTH = 0.05
"""Success on seen tasks that a part has to be worth, to count."""


def runs(scale: Scale) -> dict[str, Run]:
    """Variant -> its run with seed 0, without its steps."""
    whole = Run("ours_prior", scale.few, 0, 0)
    return {
        WHOLE: whole,
        "no_prior": replace(whole, contestant="ours_scratch"),
        "no_video_loss": replace(whole, contestant="no_video_prior"),
        "neither": replace(whole, contestant="no_video_scratch"),
        "independent_noise": replace(whole, variant="independent_noise"),
        "no_cloning": replace(whole, variant="no_cloning"),
    }


def cells(scale: Scale) -> list[Cell]:
    """All variants of each seed."""
    return [
        Cell("mechanism", cell_name(variant, seed), seed, partial(_measured, scale, replace(run, seed=seed)))
        for seed in scale.seeds
        for variant, run in runs(scale).items()
    ]


def cell_name(variant: str, seed: int) -> str:
    """Name of a cell."""
    return f"{variant}-seed_{seed}"


def _measured(scale: Scale, run: Run) -> dict[str, Any]:
    run = replace(run, steps=steps(scale, "samples", run.contestant))
    tried = conditions(scale)
    found = measured(scale, run, tried)
    (unseen,) = (condition for condition in tried if condition.name == "unseen_tasks")
    policy = trained(scale, run)
    return found | {"endings_of_unseen_tasks": endings(policy, unseen, scale.episodes, FIRST_SCENE, scale.device)}


def report(scale: Scale, records: Mapping[str, Mapping[str, Any]]) -> Report:
    """Success of each variant, the whole against each, and how episodes of unseen tasks end."""
    names = {variant: [cell_name(variant, seed) for seed in scale.seeds] for variant in (*PARTS, WHOLE)}
    found = grouped(records, names)
    successes = {variant: success(own) for variant, own in found.items()}
    gains = {
        variant: against(own, found[WHOLE]) for variant, own in found.items() if variant != WHOLE and WHOLE in found
    }
    ends = {
        variant: {ending: sum(r["metrics"]["endings_of_unseen_tasks"][ending] for r in own) for ending in ENDINGS}
        for variant, own in found.items()
    }
    findings = [
        by_change(
            f"Success on seen tasks is owed to {part}.",
            f"Holds where the 95 % interval of the paired difference lies at {points(WORTH)} or above; does not where "
            "it lies below.",
            gains[variant]["seen"] if all_seeds(scale, found, variant, WHOLE) else None,
            WORTH,
            scale.seeds,
        )
        for variant, part in PARTS.items()
    ]
    if not found:
        return Report(findings)
    tables = [
        success_table("Success without one part", "As many steps for all.", by_condition(successes), WHOLE, _lacks()),
        against_table("The whole against each", by_condition(gains)),
        NumberTable(
            "How episodes of unseen tasks end",
            f"Which cube the arm goes to, and which way it pushes it, over all seeds; {scale.episodes} episodes each.",
            ENDINGS,
            {words(variant): [str(count) for count in counts.values()] for variant, counts in ends.items()},
        ),
    ]
    return Report(findings, tables, {"success": successes, "whole_against": gains, "endings_of_unseen_tasks": ends})


def _lacks() -> str:
    return "; ".join(f"{words(variant)}: without {part}" for variant, part in PARTS.items()) + "."
