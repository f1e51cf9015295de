"""Cells of one setting that differ in their seed, taken together; settings beside each other.

A cell's record here is one that `runs.measured` made. Settings are compared on scenes that all were tried in.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.claims.findings import percent, times
from benchmarks.claims.scales import Scale
from benchmarks.paired import contrast, rate, trial
from benchmarks.result_rows import success_interval, words
from lerobot_wam.report.charts import interval_chart
from lerobot_wam.report.page import NumberTable

SETTINGS = ("contestant", "size", "labels_per_task", "steps", "batch_size", "first_scene")
"""What cells that are taken together share; and the prior that they began as, which older ones do not say."""
Group = Sequence[Mapping[str, Any]]
"""The records of one setting, one a seed."""


def group(records: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> Group:
    """Those of the named cells that are there.

    Raises:
        ValueError: They differ in more than their seed.
    """
    found = {name: records[name] for name in names if name in records}
    for key in (*SETTINGS, "prior_sha256"):
        values = {name: record["metrics"].get(key) for name, record in found.items()}
        if key not in SETTINGS:
            values = {name: value for name, value in values.items() if value is not None}
        if len(set(values.values())) > 1:
            raise ValueError(f"cells of one setting differ in {key}: {values}; remove those of another time")
    return list(found.values())


def grouped(records: Mapping[str, Mapping[str, Any]], names: Mapping[str, Sequence[str]]) -> dict[str, Group]:
    """Setting -> `group` of the cells named for it, of those settings that have any."""
    return {setting: found for setting, own in names.items() if (found := group(records, own))}


def all_seeds(scale: Scale, found: Mapping[str, Group], *names: str) -> bool:
    """Whether the named settings have been measured with every seed."""
    return all(len(found.get(name, ())) == len(scale.seeds) for name in names)


def success(found: Group) -> dict[str, Any]:
    """Condition -> success over all seeds with its Wilson interval, and mean progress where that is known."""
    return {
        condition: rate([success for tried in _trials(found, condition) for success in tried])
        | {"seeds": len(found)}
        | (
            {"progress": fmean(r["metrics"]["conditions"][condition]["progress"] for r in found)}
            if "progress" in of
            else {}
        )
        for condition, of in found[0]["metrics"]["conditions"].items()
    }


def against(before: Group, after: Group) -> dict[str, Any]:
    """Condition -> how many times as often the second succeeds as the first, and by how much more; with intervals."""
    return {
        condition: contrast(_trials(before, condition), _trials(after, condition))
        for condition in after[0]["metrics"]["conditions"]
    }


def by_condition(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Columns of a table: a condition, for people -> setting -> what `success` or `against` says of it."""
    conditions = dict.fromkeys(condition for cases in found.values() for condition in cases)
    return {words(c): {setting: cases[c] for setting, cases in found.items()} for c in conditions}


def _trials(found: Group, condition: str) -> list[list[bool]]:
    """Success of each training in each scene of a condition."""
    return [trial(r["metrics"]["conditions"][condition]) for r in found]


def success_table(
    title: str, text: str, columns: Mapping[str, Mapping[str, Mapping[str, Any]]], strong: str, note: str = ""
) -> NumberTable:
    """Success with intervals, and a chart a column.

    Args:
        title: Heading.
        text: What the numbers are.
        columns: Column -> row -> what `success` says of a condition.
        strong: The row that matters; it comes last.
        note: Said below.
    """
    rows = sorted(dict.fromkeys(row for by in columns.values() for row in by), key=lambda row: row == strong)
    charts = [
        interval_chart(
            column, [success_interval(words(row), by[row], strong=row == strong) for row in rows if row in by]
        )
        for column, by in columns.items()
    ]
    cells = {words(row): [percent(by[row]) if row in by else "" for by in columns.values()] for row in rows}
    text = f"{text} Success with its 95 % Wilson interval."
    return NumberTable(title, text, list(columns), cells, charts, note, strong=words(strong))


def against_table(title: str, columns: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> NumberTable:
    """Ratios and differences with intervals; `columns` as above, of what `against` says."""
    rows = dict.fromkeys(row for by in columns.values() for row in by)

    def cell(case: Mapping[str, Any]) -> str:
        low, high = (f"{100 * bound:+.0f}" for bound in case["change_95"])
        return (
            f"{times(case['ratio'])} ({times(*case['ratio_95'] or ())}), {100 * case['change']:+.0f} ({low} to {high})"
        )

    return NumberTable(
        title,
        "How many times as often it succeeds, and the difference in points, with 95 % intervals over scenes, which are "
        "the same for both, and trainings.",
        list(columns),
        {words(row): [cell(by[row]) if row in by else "" for by in columns.values()] for row in rows},
    )
