"""Repeats: cells of claim A, recorded, trained and tried a second time from nothing, give the same numbers.

Those that do not start from the prior, for that would have to be trained again too.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.claims import a_generalisation
from benchmarks.claims.cells import Cell, chosen, records, run
from benchmarks.claims.contestants import CONTESTANTS
from benchmarks.claims.findings import Finding, Report, Verdict, all_of, not_yet
from benchmarks.claims.scales import NANO, Scale
from benchmarks.result_rows import leaves
from lerobot_wam.report.page import NumberTable

TITLE = "Repeats · A cell once more, from nothing"
REPEATED = 2


def cells(scale: Scale) -> list[Cell]:
    """One for each of the first contestants that start from random weights."""
    budget = next(iter(scale.budgets))
    started = [who for who in scale.contestants if not CONTESTANTS[who].starts_from_prior][:REPEATED]
    names = [a_generalisation.cell_name(who, NANO, scale.budgets[budget][0], budget, scale.seeds[0]) for who in started]
    return [Cell("repeat", name, scale.seeds[0], partial(_measured, scale, name)) for name in names]


def _measured(scale: Scale, name: str) -> dict[str, Any]:
    (first,) = chosen(a_generalisation.cells(scale), name)
    (second,) = chosen(a_generalisation.cells(replace(scale, again=True)), name)
    run(scale, [first])
    published = records(scale, [first])[name]
    again = json.loads(json.dumps(second.measure()))  # as a file holds it
    before, after = ({"/".join(place): value for place, value in leaves(m)} for m in (published["metrics"], again))
    places = sorted(before.keys() | after.keys())
    return {
        "first": {key: published[key] for key in ("date", "commit", "machine")},
        "values": len(places),
        "different": {
            place: [before.get(place), after.get(place)]
            for place in places
            if place not in before or place not in after or before[place] != after[place]
        },
    }


def report(scale: Scale, records: Mapping[str, Mapping[str, Any]]) -> Report:
    """Whether any value differs."""
    found = {name: record["metrics"] for name, record in records.items()}
    verdicts: list[Verdict] = ["does not hold" if metrics["different"] else "holds" for metrics in found.values()]
    claim = "A cell that is measured once more, from nothing, gives the same numbers."
    rule = "Holds where every value is the same to the last digit, success in each scene among them."
    values = sum(metrics["values"] for metrics in found.values())
    different = sum(len(metrics["different"]) for metrics in found.values())
    same = f"{values - different} of {values} values the same"
    finding = Finding(claim, rule, all_of(verdicts), same, f"cells: {len(found)}")
    if len(found) < len(cells(scale)):
        finding = not_yet(claim, rule)
    rows = {
        name: [
            str(metrics["values"]),
            str(len(metrics["different"])),
            f"{metrics['first']['date'][:10]}, {metrics['first']['commit']}",
        ]
        for name, metrics in found.items()
    }
    table = NumberTable(
        "Measured again", "Recorded, trained and tried in an empty folder.", ("values", "different", "first"), rows
    )
    return Report([finding], [table] if rows else [], found)
