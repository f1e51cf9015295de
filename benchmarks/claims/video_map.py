"""Where video helps, where it is neutral and where it hurts: claim A's policies of one network, in pairs.

The four of them differ in whether their weights begin as those of the prior, which has seen video, and in whether they
go on to imagine video while they learn to act; under "clock" also in their steps, since imagining takes time.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.claims.summaries import Group, against
from lerobot_wam.report.page import NumberTable

PAIRS = {
    "prior and video loss together": ("no_video_scratch", "ours_prior"),
    "the prior, video loss kept": ("ours_scratch", "ours_prior"),
    "the prior, without video loss": ("no_video_scratch", "no_video_prior"),
    "the video loss, from the prior": ("no_video_prior", "ours_prior"),
    "the video loss, from scratch": ("no_video_scratch", "ours_scratch"),
}
"""What is added -> contestants without and with it."""
NEUTRAL = 0.05
"""Change of success up to which it makes no difference."""


def video_map(groups: Mapping[str, Group]) -> dict[str, dict[str, Any]]:
    """What is added -> condition -> what `against` says of it, and its effect; pairs without cells are left out."""
    found = {
        added: against(groups[without], groups[having])
        for added, (without, having) in PAIRS.items()
        if {without, having} <= groups.keys() and len(groups[without]) == len(groups[having])
    }
    return {
        added: {condition: case | {"effect": effect(case["change_95"])} for condition, case in cases.items()}
        for added, cases in found.items()
    }


def effect(change_95: tuple[float, float]) -> str:
    """What the 95 % interval of a difference says: helps, hurts, neutral, or open where it is too wide to tell."""
    low, high = change_95
    if low > 0:
        return "helps"
    if high < 0:
        return "hurts"
    return "neutral" if low >= -NEUTRAL and high <= NEUTRAL else "open"


def map_table(title: str, rows: str, cases: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> NumberTable:
    """The map for people.

    Args:
        title: Heading.
        rows: What the rows are.
        cases: Row, which is where it was tried -> what is added -> what `video_map` says of one condition.
    """

    def cell(case: Mapping[str, Any]) -> str:
        low, high = (f"{100 * bound:+.0f}" for bound in case["change_95"])
        return f"{case['effect']}: {100 * case['change']:+.0f} ({low} to {high})"

    added = list(dict.fromkeys(name for by in cases.values() for name in by))
    return NumberTable(
        title,
        f"{rows} Success with it less success without it, in points, with its 95 % interval: it helps above 0, "
        f"hurts below, is neutral within {100 * NEUTRAL:.0f} points, else the matter is open.",
        added,
        {where: [cell(by[name]) if name in by else "" for name in added] for where, by in cases.items()},
    )
