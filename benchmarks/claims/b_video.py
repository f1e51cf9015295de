"""Claim B: video of other robots, without actions, lifts success on unseen tasks by more than 42 % relative.

All policies start from the prior and learn from the same few demonstrations of the seen tasks for the same number of
steps. Some also see the other three arms do the unseen tasks, as video alone, in half of every batch; as a control,
others see these arms do the seen tasks for as many minutes.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.claims.cells import Cell
from benchmarks.claims.data import OTHER_ARMS, VIDEO, first_minutes, minutes
from benchmarks.claims.data import video as video_of
from benchmarks.claims.findings import Finding, Report, decided, not_yet, points, times
from benchmarks.claims.runs import Run, conditions, measured, steps
from benchmarks.claims.scales import Scale
from benchmarks.claims.summaries import against, against_table, all_seeds, by_condition, grouped, success, success_table
from lerobot_wam.data.recipe import MixtureEntry
from lerobot_wam.sim.episodes import Recipe

TITLE = "B · Video of other robots"
WITHOUT, UNSEEN, SEEN = "no_video", "video_of_unseen_tasks", "video_of_seen_tasks"
GOAL = 1.42
"""Times as many successes with the video as without."""


def cells(scale: Scale) -> list[Cell]:
    """With and without, then the control, for each seed."""
    return [
        Cell("b", cell_name(video, seed), seed, partial(_measured, scale, video, seed))
        for seed in scale.seeds
        for video in (UNSEEN, WITHOUT, SEEN)
    ]


def cell_name(video: str, seed: int) -> str:
    """Name of a cell."""
    return f"{video}-seed_{seed}"


def videos(scale: Scale, video: str) -> list[MixtureEntry]:
    """The other arms' recordings, actions left out, together as heavy as the demonstrations."""
    if video == WITHOUT:
        return []
    tasks = scale.unseen if video == UNSEEN else scale.seen
    share = len(OTHER_ARMS)
    recipes = {arm: Recipe(tasks, arm, seed=VIDEO, looks=scale.looks) for arm in OTHER_ARMS}
    found = [
        first_minutes(scale, f"{video}-{arm}", scale.video_minutes / share, recipe) for arm, recipe in recipes.items()
    ]
    return [video_of(root, episodes, 1 / share) for root, episodes in found]


def _measured(scale: Scale, video: str, seed: int) -> dict[str, Any]:
    run = Run("ours_prior", scale.few, steps(scale, "clock", "ours_prior"), seed, video=video)
    entries = videos(scale, video)
    return {
        "video": video,
        "minutes_of_video": sum(minutes(Path(str(found.root)), found.episodes) for found in entries),
    } | measured(scale, run, conditions(scale)[:2], entries)


def report(scale: Scale, records: Mapping[str, Mapping[str, Any]]) -> Report:
    """Success with each kind of video, and what that says."""
    names = {video: [cell_name(video, seed) for seed in scale.seeds] for video in (WITHOUT, SEEN, UNSEEN)}
    found = grouped(records, names)
    if not found:
        return Report([_finding(None)])
    successes = {video: success(own) for video, own in found.items()}
    gains = {
        f"{after} against {before}": against(found[before], found[after])
        for after, before in ((UNSEEN, WITHOUT), (UNSEEN, SEEN), (SEEN, WITHOUT))
        if {before, after} <= found.keys()
    }
    complete = all_seeds(scale, found, UNSEEN, WITHOUT)

    return Report(
        [_finding(gains[f"{UNSEEN} against {WITHOUT}"]["unseen_tasks"] if complete else None)],
        [
            success_table(
                "Success with and without video of other robots",
                f"{scale.few} demonstrations of each seen task; {scale.video_minutes:g} simulated minutes of video.",
                by_condition(successes),
                UNSEEN,
            ),
            *([against_table("What the video changes", by_condition(gains))] if gains else []),
        ],
        {"success": successes, "against": gains},
    )


def _finding(gain: Mapping[str, Any] | None) -> Finding:
    claim = "Video of other robots, without actions, lifts success on unseen tasks by more than 42 % relative."
    rule = (
        f"Holds where the 95 % interval of the ratio of successes lies at {GOAL:g} or above; does not where it lies "
        "below."
    )
    if not gain:
        return not_yet(claim, rule)
    note = f"{times(*gain['ratio_95'] or ())}, {points(*gain['change_95'])}"
    return Finding(claim, rule, decided(gain["ratio_95"], GOAL), times(gain["ratio"]), note)
