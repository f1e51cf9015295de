"""Scaling: success where nothing was shown against the size of the network, and against the diversity of the data.

All learn from the most demonstrations, for with fewer no one does unseen tasks beyond luck, from equally many samples,
and from scratch: a prior is of one size, and has seen every task and look already. Diversity is that of the tasks in as
many demonstrations, every verb and colour of the unseen tasks always among them, and that of their scenes.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.claims.cells import Cell
from benchmarks.claims.findings import Report, by_change, points
from benchmarks.claims.runs import Run, conditions, measured, steps
from benchmarks.claims.scales import Scale
from benchmarks.claims.summaries import against, all_seeds, by_condition, grouped, success, success_table
from benchmarks.result_rows import words
from lerobot_wam.sim.tasks import select_tasks

TITLE = "Scaling · Size and diversity"
GOAL = 0.05
"""More success on unseen tasks that counts as more."""

STATEMENTS = {
    "size": ("unseen_tasks", "A larger network succeeds more often on unseen tasks"),
    "tasks": ("unseen_tasks", "As many demonstrations of more tasks lift success on unseen tasks"),
    "scenes": ("unseen_scenes", "As many demonstrations in more scenes lift success in unseen scenes"),
}
"""Question -> where it is judged, and what is asked."""
_ABOUT = "From least to most; all are tried in the same tasks, whichever of them they were shown."


def settings(scale: Scale) -> dict[str, dict[str, Run]]:
    """Question -> setting, from least to most -> its run with seed 0, without its steps."""
    whole = Run("ours_scratch", scale.labels[-1], 0, 0)
    episodes = whole.labels * len(select_tasks(scale.seen))
    return {
        "size": {name: replace(whole, size=name) for name in scale.sizes},
        "tasks": {
            f"{(count := len(select_tasks(tasks)))}_tasks": replace(whole, labels=episodes // count, tasks=tasks)
            for tasks in scale.fewer_tasks
        }
        | {"all_tasks": whole},
        # None where it is the scale's own, for then the training is claim A's.
        "scenes": {
            looks: replace(whole, looks=None if looks == scale.looks else looks) for looks in ("plain", "varied")
        },
    }


def cells(scale: Scale) -> list[Cell]:
    """All settings of each seed; one that two questions share is trained once."""
    return [
        Cell("scaling", cell_name(question, name, seed), seed, partial(_measured, scale, replace(run, seed=seed)))
        for seed in scale.seeds
        for question, runs in settings(scale).items()
        for name, run in runs.items()
    ]


def cell_name(question: str, setting: str, seed: int) -> str:
    """Name of a cell."""
    return f"{question}-{setting}-seed_{seed}"


def _measured(scale: Scale, run: Run) -> dict[str, Any]:
    return measured(scale, replace(run, steps=steps(scale, "samples", run.contestant)), conditions(scale))


def report(scale: Scale, records: Mapping[str, Mapping[str, Any]]) -> Report:
    """Success from least to most of each, and whether the most is better than the least."""
    findings, tables, metrics = [], [], {}
    for question, runs in settings(scale).items():
        if len(runs) < 2:  # a small scale compares less
            continue
        found = grouped(records, {name: [cell_name(question, name, seed) for seed in scale.seeds] for name in runs})
        least, *_, most = runs
        judged, statement = STATEMENTS[question]
        gain = None
        if all_seeds(scale, found, least, most):
            gain = against(found[least], found[most])
        findings.append(
            by_change(
                f"{statement} ({words(most)} against {words(least)}).",
                f"Holds where the 95 % interval of the paired difference lies at {points(GOAL)} or above; does not "
                "where it lies below.",
                gain[judged] if gain else None,
                GOAL,
                scale.seeds,
            )
        )
        if found:
            successes = {name: success(own) for name, own in found.items()}
            metrics[question] = {"success": successes} | ({"most_against_least": gain} if gain else {})
            tables.append(success_table(f"Success against {question}", _ABOUT, by_condition(successes), most))
    return Report(findings, tables, metrics)
