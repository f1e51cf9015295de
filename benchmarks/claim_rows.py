"""What the documents say of the claims: a row a verdict, and tables of every success rate and comparison."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.claims.findings import NO_INTERVAL
from benchmarks.result_rows import Record, Row, change, interval, leaves, rate, shown, success_interval, table, words
from lerobot_wam.report.charts import chart_grid, interval_chart

CHART_NAMES = {
    "ours_prior": "ours, from the prior",
    "ours_scratch": "ours, from scratch",
    "no_video_prior": "no video, from the prior",
    "no_video_scratch": "no video, from scratch",
    "act": "ACT",
    "diffusion": "Diffusion Policy",
    "multi_task_dit": "multi-task DiT",
    "fastwam": "FastWAM",
}
"""Contestants of claim A, in the order of its chart, and what it calls them."""


def claim_rows(where: str, record: Record) -> list[Row]:
    """Verdicts by the rules that were fixed beforehand."""
    return [
        (f"{claim}{where}", ": ".join(filter(None, (found["verdict"], found["value"]))), found["note"])
        for claim, found in record["metrics"]["verdicts"].items()
    ]


def claim_tables(metrics: dict[str, Any]) -> list[str]:
    """Success, comparisons and the rest, however deep they lie; takes all out of the metrics."""
    metrics.pop("verdicts")
    rates = [(place, rate(found), interval(found)) for place, found in _taken(metrics, "success_wilson_95")]
    changes = [
        (place, _times(found), change(found), str(found["scenes"])) for place, found in _taken(metrics, "ratio_95")
    ]
    rest = [(", ".join(map(words, place)), shown(value)) for place, value in leaves(metrics)]
    metrics.clear()
    tables: dict[tuple[str, ...], Sequence[Sequence[str]]] = {
        ("Setting", "Success", "n, 95 % interval"): rates,
        ("Setting", "Times as often", "Difference, paired by scene", "Scenes"): changes,
        ("Quantity", "Value"): rest,
    }
    return [table(header, rows) for header, rows in tables.items() if rows]


def claim_a_chart(record: Record) -> str:
    """An SVG file of claim A: success of every contestant with equal training time, by condition and demonstrations."""
    by_labels = record["metrics"]["clock"]["success"]
    conditions = dict.fromkeys(condition for by in by_labels.values() for cases in by.values() for condition in cases)
    return chart_grid(
        [
            interval_chart(
                f"{words(condition)}, {labels.removesuffix('_labels')} demonstrations",
                [
                    success_interval(name, by[who][condition], strong=who == "ours_prior")
                    for who, name in CHART_NAMES.items()
                    if who in by
                ],
            )
            for condition in conditions
            for labels, by in by_labels.items()
        ],
        columns=len(by_labels),
    )


def _taken(found: dict[str, Any], key: str, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Take every mapping that has the key out of a nested one, and those that this leaves empty."""
    for name, inner in list(found.items()):
        where = f"{place}, {words(name)}" if place else words(name)
        if isinstance(inner, dict) and key in inner:
            yield where, found.pop(name)
        elif isinstance(inner, dict):
            yield from _taken(inner, key, where)
            if not inner:
                del found[name]


def _times(found: Mapping[str, Any]) -> str:
    ratio, *bounds = (
        "∞" if value is None else f"{value:.2f}" for value in (found["ratio"], *(found["ratio_95"] or ()))
    )
    return f"{ratio} ({'–'.join(bounds) or NO_INTERVAL})"
