"""Claim A: unseen tasks, and unseen scenes, more than twice as well as policies that learn actions only.

A cell is one contestant, trained by one budget on so many demonstrations of each seen task with one seed, and tried
under three conditions on scenes that are the same for all. Never chosen by success: the last checkpoint acts, its
weight average where it keeps one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

from benchmarks.claims.cells import Cell
from benchmarks.claims.contestants import CONTESTANTS
from benchmarks.claims.findings import Finding, Report, Verdict, all_of, any_of, decided, not_yet, points, times
from benchmarks.claims.runs import Run, conditions, measured, ours, steps
from benchmarks.claims.scales import NANO, Scale
from benchmarks.claims.summaries import Group, against, against_table, all_seeds, grouped, success, success_table
from benchmarks.claims.verbs import apart
from benchmarks.claims.video_map import map_table, video_map
from benchmarks.result_rows import words
from lerobot_wam.report.page import NumberTable

TITLE = "A · Unseen tasks and unseen scenes"
CLAIMANT = "ours_prior"
ACTION_ONLY = ("no_video_scratch", "act", "diffusion", "multi_task_dit")
"""Policies that have never seen video: those the claim is about. The others say where a difference comes from."""
GOAL = 2.0
"""Times as many successes as each of them."""
MARGIN = 0.05
"""Of seen-task success that counts as no loss."""
CONDITIONS = ("seen", "unseen_tasks", "unseen_scenes")


def cells(scale: Scale) -> list[Cell]:
    """Those that decide first; then more demonstrations; then equal samples."""
    return [
        Cell(
            "a",
            cell_name(who, size, labels, budget, seed),
            seed,
            partial(_measured, scale, budget, Run(who, labels, 0, seed, size)),
        )
        for budget, decides in product(scale.budgets, (True, False))
        for seed in scale.seeds
        for who in scale.contestants
        for size in (scale.sizes_in_claim_a if ours(who) else (NANO,))
        for labels in scale.budgets[budget]
        if (labels in scale.deciding) == decides
    ]


def cell_name(contestant: str, size: str, labels: int, budget: str, seed: int) -> str:
    """Name of a cell."""
    return f"{entrant(contestant, size)}-{labels}_labels-{budget}-seed_{seed}"


def entrant(contestant: str, size: str) -> str:
    """Name of a contestant, with its size where that is not nano's."""
    return contestant if size == NANO else f"{contestant}_{size}"


def _measured(scale: Scale, budget: str, run: Run) -> dict[str, Any]:
    run = replace(run, steps=steps(scale, budget, run.contestant, run.size))
    return {"budget": budget} | measured(scale, run, conditions(scale))


def report(scale: Scale, records: Mapping[str, Mapping[str, Any]]) -> Report:
    """Success of all, ours from the prior against each, where video helps, and what that says."""
    findings: list[Finding] = []
    tables: list[NumberTable] = []
    metrics: dict[str, Any] = {}
    entrants = [(who, size) for who in scale.contestants for size in (scale.sizes_in_claim_a if ours(who) else (NANO,))]
    for budget, compared in scale.budgets.items():
        groups = {
            labels: grouped(
                records,
                {
                    entrant(who, size): [cell_name(who, size, labels, budget, seed) for seed in scale.seeds]
                    for who, size in entrants
                },
            )
            for labels in compared
        }
        against_each = {labels: _against_claimant(by) for labels, by in groups.items()}
        split = {
            labels: {who: [apart(scale, record) for record in found] for who, found in by.items()}
            for labels, by in groups.items()
        }
        parts = {
            "success": _successes(groups),
            "ours_prior_against": against_each,
            "pushes_and_touches": _successes(split),
            "ours_prior_against_by_verb": {labels: _against_claimant(by) for labels, by in split.items()},
            "video": {labels: video_map(by) for labels, by in groups.items()},
        }
        metrics[budget] = {
            name: {f"{labels}_labels": by for labels, by in found.items() if by} for name, found in parts.items()
        }
        if any(groups.values()):
            columns = {name: _columns(found) for name, found in parts.items()}
            equal = "training time" if budget == "clock" else "samples"
            tables += [
                success_table(
                    f"Success with equal {equal}",
                    "Columns say under which condition, and after how many demonstrations of each seen task.",
                    columns["success"],
                    CLAIMANT,
                    " ".join(f"{words(who).capitalize()}: {CONTESTANTS[who].how}." for who in scale.contestants),
                ),
                against_table(f"Ours from the prior against each (equal {equal})", columns["ours_prior_against"]),
                success_table(
                    f"Pushes and touches apart (equal {equal})",
                    "The held-out tasks are pushes, so seen pushes are what they compare with.",
                    columns["pushes_and_touches"],
                    CLAIMANT,
                ),
                against_table(
                    f"Ours from the prior against each, pushes and touches apart (equal {equal})",
                    columns["ours_prior_against_by_verb"],
                ),
            ]
            if columns["video"]:
                rows = "Rows say under which condition, and after how many demonstrations of each seen task."
                tables.append(map_table(f"Where video helps (equal {equal})", rows, columns["video"]))
        whole = {
            labels: {who: cases for who, cases in by.items() if all_seeds(scale, groups[labels], who, CLAIMANT)}
            for labels, by in against_each.items()
        }
        deciding = [labels for labels in compared if labels in scale.deciding]
        if deciding:
            findings += _findings(scale, budget, whole, deciding)
        for labels in compared:
            if labels not in deciding:  # no part of the goal
                findings += _findings(scale, budget, whole, [labels], f" after {labels} demonstrations")
    return Report(findings, tables, metrics)


def _successes(groups: Mapping[int, Mapping[str, Group]]) -> dict[int, dict[str, Any]]:
    return {labels: {who: success(found) for who, found in by.items()} for labels, by in groups.items()}


def _against_claimant(by: Mapping[str, Group]) -> dict[str, Any]:
    if CLAIMANT not in by:
        return {}
    return {who: against(found, by[CLAIMANT]) for who, found in by.items() if who != CLAIMANT}


def _columns(found: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Columns of a table: a condition and demonstrations, for people -> row -> what is known of it."""
    conditions = dict.fromkeys(name for by in found.values() for cases in by.values() for name in cases)
    return {
        f"{condition.replace('_', ' ')}, {labels}": {who: cases[condition] for who, cases in by.items()}
        for condition in conditions
        for labels, by in found.items()
        if by
    }


def _findings(
    scale: Scale, budget: str, found: Mapping[int, Mapping[str, Any]], deciding: Sequence[int], when: str = ""
) -> list[Finding]:
    """Verdicts on complete cells.

    Args:
        scale: Of the cells.
        budget: Of training.
        found: Labels -> contestant -> condition -> ours from the prior against it.
        deciding: The labels that are judged together.
        when: What the verdicts' names say of these.
    """
    rivals = [who for who in ACTION_ONLY if who in scale.contestants]

    complete = all(found[labels].keys() >= set(rivals) for labels in deciding)

    def cases(labels: int, condition: str) -> dict[str, Any]:
        return {who: found[labels][who][condition] for who in rivals}

    def verdict(labels: int, condition: str, key: str, goal: float) -> Verdict:
        return all_of(decided(case[key], goal) for case in cases(labels, condition).values())

    findings = []
    for condition in CONDITIONS[1:]:
        claim = (
            f"{condition.replace('_', ' ').capitalize()}{when}, {budget} budget: ours from the prior succeeds at "
            "least twice as often as every action-only policy."
        )
        rule = (
            f"Holds where, after {' or '.join(map(str, deciding))} demonstrations of each task, the 95 % "
            f"interval of the ratio to each ({'; '.join(CONTESTANTS[who].label for who in rivals)}) lies at "
            f"{GOAL:g} or above; does not where, after each of these, one interval lies below."
        )
        if not complete:
            findings.append(not_yet(claim, rule))
            continue
        best, who, labels = max(  # at each number of demonstrations, the rival that leaves the smallest ratio
            (*min((case["ratio"], who) for who, case in cases(labels, condition).items()), labels)
            for labels in deciding
        )
        case = found[labels][who][condition]
        note = (
            f"against {CONTESTANTS[who].label} after {labels} demonstrations: {times(*case['ratio_95'] or ())}, "
            f"{points(*case['change_95'])}"
        )
        reached = any_of(verdict(labels, condition, "ratio_95", GOAL) for labels in deciding)
        findings.append(Finding(claim, rule, reached, times(best), note))
    claim = f"Seen tasks{when}, {budget} budget: ours from the prior is not below the best action-only policy."
    rule = (
        f"Holds where the 95 % interval of every paired difference lies above {-100 * MARGIN:.0f} points, after each "
        "number of demonstrations; does not where one lies below."
    )
    if not complete:
        return [*findings, not_yet(claim, rule)]
    worst, who, labels = min(
        (case["change"], who, labels) for labels in deciding for who, case in cases(labels, "seen").items()
    )
    note = (
        f"against {CONTESTANTS[who].label} after {labels} demonstrations: "
        f"{points(*found[labels][who]['seen']['change_95'])}"
    )
    reached = all_of(verdict(labels, "seen", "change_95", -MARGIN) for labels in deciding)
    return [*findings, Finding(claim, rule, reached, points(worst), note)]
