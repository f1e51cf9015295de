"""What a claim comes to: numbers with intervals, and a verdict by a rule that stands in the code."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lerobot_wam.report.page import Finding, NumberTable

Verdict = Literal["holds", "does not hold", "undecided"]
NOT_YET: Literal["not yet measured"] = "not yet measured"
"""In place of a verdict, where cells are missing."""
NO_INTERVAL = "too few successes"
"""Said of a ratio whose interval `paired.contrast` leaves out."""


@dataclass(frozen=True)
class Report:
    """What the page shows of one claim.

    Attributes:
        findings: Verdicts, the most important first.
        tables: Numbers and charts.
        metrics: The same for `benchmarks/results/claims/<scale>/<claim>.json`: JSON values, tables as dicts of dicts.
    """

    findings: Sequence[Finding] = ()
    tables: Sequence[NumberTable] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)


def not_yet(claim: str, rule: str) -> Finding:
    """A claim whose cells are missing."""
    return Finding(claim, rule, NOT_YET, "", "cells are missing")


def by_change(claim: str, rule: str, change: Mapping[str, Any] | None, goal: float, seeds: Sequence[int]) -> Finding:
    """A claim that the interval of a paired difference decides.

    Args:
        claim: What is claimed.
        rule: When it holds.
        change: What `paired.contrast` says; None where cells are missing.
        goal: The least difference that counts.
        seeds: Of the trainings that are compared.
    """
    if not change:
        return not_yet(claim, rule)
    note = f"{points(*change['change_95'])}, {change['scenes']} scenes, {len(seeds)} seeds"
    return Finding(claim, rule, decided(change["change_95"], goal), points(change["change"]), note)


def decided(interval: Sequence[float] | None, goal: float) -> Verdict:
    """Say whether a number reaches a goal: its interval lies at or above it, below it, or on both sides.

    Args:
        interval: Lower and upper bound; None where there is none. Bounds may be infinite or nan (unknown).
        goal: The least that counts as reached.
    """
    if interval is None or any(math.isnan(bound) for bound in interval):
        return "undecided"
    low, high = interval
    return "holds" if low >= goal else "does not hold" if high < goal else "undecided"


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Holds where all hold, does not where one does not; undecided without any."""
    found = set(verdicts)
    return "does not hold" if "does not hold" in found else "holds" if found == {"holds"} else "undecided"


def any_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Holds where one holds, does not where none does; undecided without any."""
    found = set(verdicts)
    return "holds" if "holds" in found else "does not hold" if found == {"does not hold"} else "undecided"


def percent(found: Mapping[str, Any]) -> str:
    """A success rate, from `paired.rate`, for people."""
    low, high = found["success_wilson_95"]
    return f"{100 * found['success_rate']:.0f} % ({100 * low:.0f}–{100 * high:.0f})"


def times(*ratios: float) -> str:
    """A ratio, or its interval, for people; nothing stands for an interval that there is not."""
    return "×" + "–".join("∞" if math.isinf(ratio) else f"{ratio:.1f}" for ratio in ratios) if ratios else NO_INTERVAL


def points(*changes: float) -> str:
    """A difference of success rates, or its interval, for people."""
    return " to ".join(f"{100 * change:+.0f}" for change in changes) + " points"
