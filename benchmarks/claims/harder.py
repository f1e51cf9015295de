"""Longer and contact-rich tasks: does video help where one image does not say what to do next, or a grasp has to hold?

Claim A's four trainings of one network, which differ in the prior and in the video loss, learn two other things from
demonstrations, for as many steps each: two stages in order, with a window of four chunks, in which they see what they
have done; and to grasp a cube and put it on a plate, with an arm that the prior has never seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

from benchmarks.claims.cells import Cell
from benchmarks.claims.data import ARM
from benchmarks.claims.findings import Report, by_change, points
from benchmarks.claims.runs import Run, conditions, measured, steps
from benchmarks.claims.scales import Scale
from benchmarks.claims.summaries import all_seeds, by_condition, grouped, success, success_table
from benchmarks.claims.video_map import PAIRS, map_table, video_map
from benchmarks.result_rows import words

TITLE = "Longer and contact-rich tasks"
CONTESTANTS = ("ours_prior", "no_video_scratch", "ours_scratch", "no_video_prior")
TOGETHER = "prior and video loss together"
"""What is judged, of `PAIRS`."""
GAIN = 0.05
"""More success on seen tasks that counts as more."""


@dataclass(frozen=True)
class Setting:
    """What is demonstrated and tried.

    Attributes:
        seen: The tasks that are demonstrated, as `select_tasks` takes them.
        unseen: The tasks that never are.
        labels: Demonstrations of each seen task.
        times: Steps, of those of claim A.
        arm: Whose body it is.
        variant: As of `Run`.
    """

    seen: str
    unseen: str
    labels: int
    times: int = 1
    arm: str = ARM
    variant: str | None = None

    def run(self, scale: Scale, contestant: str, seed: int) -> Run:
        """A training for it."""
        count = self.times * steps(scale, "samples", contestant)
        return Run(contestant, self.labels, count, seed, tasks=self.seen, variant=self.variant, arm=self.arm)


def settings(scale: Scale) -> dict[str, Setting]:
    """Their names, and what they are."""
    stages = Setting("two_stage_seen", "two_stage_unseen", 16, variant="remembers")
    place = Setting("place_seen", "place_unseen", scale.labels[-1], times=2, arm="viperx_gripper")
    if scale.name == "smoke":  # one task each, for recordings take as long as all else
        stages = replace(stages, seen="touch-red+touch-blue", unseen="touch-blue+touch-red")
        place = replace(place, seen="place-red-yellow", unseen="place-red-cyan", labels=16)
    return {"two_stages": stages, "grasp_and_place": place}


def cells(scale: Scale) -> list[Cell]:
    """With prior and video loss and without either, first."""
    return [
        Cell("harder", cell_name(name, who, seed), seed, partial(_measured, scale, setting, who, seed))
        for seed, who, (name, setting) in product(scale.seeds, CONTESTANTS, settings(scale).items())
    ]


def cell_name(setting: str, contestant: str, seed: int) -> str:
    """Name of a cell."""
    return f"{setting}-{contestant}-seed_{seed}"


def _measured(scale: Scale, setting: Setting, contestant: str, seed: int) -> dict[str, Any]:
    tried = conditions(scale, setting.seen, setting.unseen, setting.arm)
    return measured(scale, setting.run(scale, contestant, seed), tried)


def report(scale: Scale, records: Mapping[str, Mapping[str, Any]]) -> Report:
    """Success in each setting, and where video helps."""
    found = {
        setting: grouped(records, {who: [cell_name(setting, who, seed) for seed in scale.seeds] for who in CONTESTANTS})
        for setting in settings(scale)
    }
    successes = {setting: {who: success(own) for who, own in by.items()} for setting, by in found.items() if by}
    video = {setting: cases for setting, by in found.items() if (cases := video_map(by))}
    complete = [setting for setting, by in found.items() if all_seeds(scale, by, *PAIRS[TOGETHER])]
    findings = [
        by_change(
            f"{words(name).capitalize()}: the prior and the video loss together lift success on seen tasks.",
            f"Holds where the 95 % interval of the paired difference to the same network without either lies at "
            f"{points(GAIN)} or above; does not where it lies below.",
            video[name][TOGETHER]["seen"] if name in complete else None,
            GAIN,
            scale.seeds,
        )
        for name in found
    ]
    if not successes:
        return Report(findings)
    tables = [
        success_table("Success", "As many steps for all of a setting.", _columns(successes), "ours_prior"),
        *([map_table("Where video helps", "Rows are settings and conditions.", _columns(video))] if video else []),
    ]
    return Report(findings, tables, {"success": successes, "video": video})


def _columns(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """A setting and a condition, for people -> row -> what is known of it."""
    return {
        f"{words(setting)}, {condition}": rows
        for setting, by in found.items()
        for condition, rows in by_condition(by).items()
    }
