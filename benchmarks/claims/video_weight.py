"""How much should imagining count, next to acting, for a policy that begins as the prior?

Claim A's policy from the prior with a tenth of the video loss's weight, beside its twins with the whole of it and
without imagined video, from the same weights and for as much training time.
"""

from collections.abc import Mapping
from functools import partial
from itertools import product
from typing import Any

from benchmarks.claims.cells import Cell
from benchmarks.claims.findings import Report, by_change
from benchmarks.claims.runs import Run, conditions, measured, steps
from benchmarks.claims.scales import Scale
from benchmarks.claims.summaries import against, against_table, all_seeds, by_condition, grouped, success, success_table
from lerobot_wam.report.page import NumberTable

TITLE = "How much imagining should count"
LIGHT, WHOLE, NONE = "tenth_of_the_weight", "whole_weight", "no_imagined_video"
WEIGHTS = {LIGHT: ("ours_prior", "light_video"), WHOLE: ("ours_prior", None), NONE: ("no_video_prior", None)}
"""How much the video counts -> contestant of claim A and variant of it, as `Run` takes them."""
QUESTIONS = {
    "a tenth of the video loss's weight lifts success on seen tasks": (WHOLE, "seen"),
    "a tenth of the video loss's weight lifts success on unseen tasks": (WHOLE, "unseen_tasks"),
    "imagining so lightly is better in unseen tasks than not at all": (NONE, "unseen_tasks"),
}
"""What is judged -> what the light one is compared with, and under which condition."""


def cells(scale: Scale) -> list[Cell]:
    """With many demonstrations, where going on to imagine has cost success, first; then with a few."""
    return [
        Cell("video_weight", cell_name(weight, labels, seed), seed, partial(_measured, scale, weight, labels, seed))
        for labels, seed, weight in product(_labels(scale), scale.seeds, WEIGHTS)
    ]


def cell_name(weight: str, labels: int, seed: int) -> str:
    """Name of a cell."""
    return f"{weight}-{labels}_labels-seed_{seed}"


def _labels(scale: Scale) -> list[int]:
    return list(dict.fromkeys((scale.labels[-1], scale.few)))


def _measured(scale: Scale, weight: str, labels: int, seed: int) -> dict[str, Any]:
    contestant, variant = WEIGHTS[weight]
    run = Run(contestant, labels, steps(scale, "clock", contestant), seed, variant=variant)
    return {"weight": weight} | measured(scale, run, conditions(scale))


def report(scale: Scale, records: Mapping[str, Mapping[str, Any]]) -> Report:
    """Success with each weight, and a tenth of it against both others."""
    tables: list[NumberTable] = []
    metrics: dict[str, Any] = {}
    complete: dict[str, Any] = {}
    for labels in _labels(scale):
        names = {weight: [cell_name(weight, labels, seed) for seed in scale.seeds] for weight in WEIGHTS}
        found = grouped(records, names)
        if not found:
            continue
        successes = {weight: success(own) for weight, own in found.items()}
        light = found.get(LIGHT)
        gains = {weight: against(own, light) for weight, own in found.items() if light and weight != LIGHT}
        if labels == scale.labels[-1]:
            complete = {weight: gain for weight, gain in gains.items() if all_seeds(scale, found, weight, LIGHT)}
        shown = f"{labels} demonstrations of each task"
        tables.append(success_table(shown, "As much training time for all.", by_condition(successes), LIGHT))
        if gains:
            tables.append(against_table(f"A tenth of the weight against each, {shown}", by_condition(gains)))
        metrics[f"{labels}_labels"] = {"success": successes, "tenth_against": gains}
    findings = [
        by_change(
            f"Asked after claim A: from the prior, {question}.",
            "Holds where the 95 % interval of the paired difference, after the most demonstrations, lies above 0; does "
            "not where it lies below.",
            complete.get(other, {}).get(condition),
            0,
            scale.seeds,
        )
        for question, (other, condition) in QUESTIONS.items()
    ]
    return Report(findings, tables, metrics)
