"""Cells: the parts of a claim that are measured one by one, each into a file of its own.

`benchmarks/results/claims/<scale>/<claim>/<cell>.json` is written once; a claim that is run again measures what is
missing. What all of a claim's cells say together is written beside them, anew each time.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.claims.findings import Report
from benchmarks.claims.scales import Scale


@dataclass(frozen=True)
class Cell:
    """One measurement.

    Attributes:
        claim: The claim's key on the command line.
        name: Unique within the claim; its file's name. Words of one setting are joined by "_", settings by "-".
        seed: Of training.
        measure: Does the work, going on from what is kept in the scale's outputs; returns JSON values. Nothing among
            them depends on when or how often it ran.
    """

    claim: str
    name: str
    seed: int
    measure: Callable[[], Mapping[str, Any]]


def result_name(scale: Scale, claim: str, cell: str) -> str:
    """Name of a cell's result, as `write_result` takes it."""
    return f"claims/{scale.name}/{claim}/{cell}"


def result_file(scale: Scale, cell: Cell) -> Path:
    """The file that a cell is measured into."""
    return common.RESULTS / f"{result_name(scale, cell.claim, cell.name)}.json"


def missing(scale: Scale, cells: Iterable[Cell]) -> list[Cell]:
    """Those without a result, in their order."""
    return [cell for cell in cells if not result_file(scale, cell).is_file()]


def chosen(cells: Iterable[Cell], pattern: str = "*", seeds: Sequence[int] | None = None) -> list[Cell]:
    """Those whose name matches and whose seed is wanted."""
    return [cell for cell in cells if fnmatch(cell.name, pattern) and (seeds is None or cell.seed in seeds)]


def command(scale: Scale, cell: Cell) -> str:
    """What repeats a cell, typed at the root of the repository."""
    return common.command_line("claims", [cell.claim, f"--scale={scale.name}", f"--only={cell.name}"])


def run(scale: Scale, cells: Iterable[Cell]) -> list[Path]:
    """Measure what is missing; returns the files written."""
    return [
        common.write_result(result_name(scale, cell.claim, cell.name), cell.measure(), cell.seed, command(scale, cell))
        for cell in missing(scale, cells)
    ]


def records(scale: Scale, cells: Iterable[Cell]) -> dict[str, dict[str, Any]]:
    """Cell name -> the result file's content, of those that are there."""
    files = {cell.name: result_file(scale, cell) for cell in cells}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}


def claim_command(scale: Scale, claim: str) -> str:
    """What measures a claim, or draws up the page."""
    return common.command_line("claims", [claim, f"--scale={scale.name}"])


def summarise(scale: Scale, claim: str, report: Report, measured: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Write `benchmarks/results/claims/<scale>/<claim>.json`, which says when, where and of what its cells were made.

    "date" is an interval where they are of several days, "machine" names every kind, "commit" is that of the newest.
    """
    ordered = sorted(measured.values(), key=lambda record: record["date"])
    first, newest = ordered[0], ordered[-1]
    verdicts = {
        finding.claim: {"verdict": finding.verdict, "value": finding.value, "note": finding.note}
        for finding in report.findings
    }
    commits = Counter(record["commit"] for record in measured.values())
    metrics = {"verdicts": verdicts, "cells": len(measured), "cells_by_commit": commits, **report.metrics}
    seeds = sorted({record["seed"] for record in measured.values()})
    machines = [record["machine"] for record in measured.values()]
    made = {
        "command": claim_command(scale, claim),
        "date": newest["date"] if newest["date"][:10] == first["date"][:10] else f"{first['date']}/{newest['date']}",
        "machine": {key: "; ".join(sorted({machine[key] for machine in machines})) for key in newest["machine"]},
        "seed": seeds,
        "metrics": _finite(metrics),
    }
    result = {key: made.get(key, value) for key, value in newest.items()}
    path = common.RESULTS / "claims" / scale.name / f"{claim}.json"
    path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return result


def _finite(value: Any) -> Any:
    """JSON knows no infinity: the ratio to a policy that never succeeded becomes null."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
