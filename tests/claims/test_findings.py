"""Verdicts and what they rest on, on numbers made by hand."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import common, fill_results
from benchmarks.claims import a_generalisation, b_video, c_new_robot, harder, page, scaling
from benchmarks.claims.findings import NOT_YET, all_of, any_of, decided, times
from benchmarks.claims.scales import CPU
from benchmarks.claims.summaries import against, group, success
from benchmarks.claims.verbs import apart
from benchmarks.claims.video_map import effect
from benchmarks.paired import contrast, rate, unchanged


def record(outcomes: dict[str, str], seed: int = 0, **metrics: Any) -> dict[str, Any]:
    """What a cell's file holds, from digits."""
    conditions = {
        name: rate([digit == "1" for digit in digits]) | {"progress": 0.5, "outcomes": digits}
        for name, digits in outcomes.items()
    }
    made = {"command": "x", "date": f"2026-11-23T0{seed}:00:00+00:00", "commit": "abc", "versions": {}}
    machine = {"processor": "a processor", "cores": "2", "accelerator": "none"}
    return made | {"machine": machine, "seed": seed, "metrics": metrics | {"first_scene": 0, "conditions": conditions}}


def digits(successes: int, episodes: int = 108) -> str:
    """So many successes, in the easiest scenes."""
    return "1" * successes + "0" * (episodes - successes)


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((2.0, 3.0), "holds"),
        ((math.inf, math.inf), "holds"),
        ((1.0, 1.9), "does not hold"),
        ((1.9, 2.1), "undecided"),
        ((1.9, math.inf), "undecided"),
        (None, "undecided"),
    ],
)
def test_a_goal_is_reached_where_the_whole_interval_reaches_it(interval: Sequence[float] | None, verdict: str):
    assert decided(interval, 2.0) == verdict


def test_verdicts_join():
    assert all_of(["holds", "holds"]) == "holds"
    assert all_of(["holds", "undecided", "does not hold"]) == "does not hold"
    assert all_of(["holds", "undecided"]) == all_of([]) == "undecided"
    assert any_of(["does not hold", "holds"]) == "holds"
    assert any_of(["does not hold", "undecided"]) == any_of([]) == "undecided"
    assert any_of(["does not hold"]) == "does not hold"


def test_a_ratio_is_that_of_the_rates_and_its_interval_is_narrower_with_more_scenes():
    before, after = [[True, False, False, False] * 25], [[True, True, False, False] * 25]
    found = contrast(before, after)
    assert (found["ratio"], found["change"], found["scenes"]) == (pytest.approx(2), pytest.approx(0.25), 100)
    low, high = found["ratio_95"]
    assert 1 < low < 2 < high < 3.5
    narrow = contrast([before[0] * 9], [after[0] * 9])
    narrow_low, narrow_high = narrow["ratio_95"]
    assert low < narrow_low < 2 < narrow_high < high
    assert found["change_95"][0] < narrow["change_95"][0] < 0.25 < narrow["change_95"][1] < found["change_95"][1]
    assert contrast(before, after) == found


def test_a_ratio_says_what_it_can_of_policies_that_never_succeed():
    never, always = [[False] * 20], [[True] * 20]
    found = contrast(never, always)
    assert (found["ratio"], found["ratio_95"]) == (math.inf, (math.inf, math.inf))
    assert contrast(always, never)["ratio_95"] == (0, 0)
    for few in (never, [[True] * 9 + [False] * 11]):
        assert contrast(never, few)["ratio_95"] is None
        assert decided(contrast(never, few)["ratio_95"], 2) == "undecided"
    assert times() == "too few successes"


def test_what_differs_between_pairs_does_not_count_where_trainings_are_matched():
    before = [[True] * 40, [False] * 40, [True, False] * 20]
    after = [[True] * 40, [True] * 4 + [False] * 36, [True, False] * 18 + [True] * 4]
    low, high = contrast(before, after, matched=True)["change_95"]
    wide_low, wide_high = contrast(before, after)["change_95"]
    assert -0.05 < low < high < 0.15
    assert wide_high - wide_low > 1  # half a point more in one training of three tells nothing


@pytest.mark.parametrize(("spread", "matched"), [(0.0, False), (0.1, False), (0.1, True)])
def test_intervals_hold_the_truth_as_often_as_they_say(spread: float, matched: bool):
    """Three trainings whose skill differs by `spread`, in scenes that differ too; 95 of 100, give or take five."""
    rng = np.random.default_rng(0)
    held = {"change_95": 0, "ratio_95": 0}
    for _ in range(200):
        scenes, skills = rng.normal(0, 0.1, 100), rng.normal(0, spread, (2, 3, 1))
        old, new = (
            rng.random((3, 100)) < mean + skill + scenes
            for mean, skill in zip((0.3, 0.45), (skills[0], skills[0 if matched else 1]), strict=True)
        )
        found = contrast(old, new, matched=matched)
        for key, truth in (("change_95", 0.15), ("ratio_95", 1.5)):
            low, high = found[key]
            held[key] += low <= truth <= high
    assert all(180 <= count <= 199 for count in held.values()), held


def test_what_is_kept_is_not_taken_for_the_answer_to_something_else(tmp_path: Path):
    note = tmp_path / "trials" / "asked.json"
    unchanged(note, ["--steps=1"], begun=False)
    unchanged(note, ["--steps=1"], begun=True)
    with pytest.raises(ValueError, match=r"other flags \(--steps=1, --steps=2\): remove it"):
        unchanged(note, ["--steps=2"], begun=True)
    unchanged(note, ["--steps=2"], begun=False)


def test_trainings_that_differ_widen_the_interval():
    alike = [[True, False] * 20] * 3
    apart = [[True] * 40, [False] * 40, [True, False] * 20]
    always = [[True] * 40]
    (low, high), (wide_low, wide_high) = (contrast(group, always)["ratio_95"] for group in (alike, apart))
    assert wide_low < low < high < wide_high


def test_seeds_of_a_setting_are_taken_together():
    before = [record({"seen": "1000"}), record({"seen": "0000"}, seed=1)]
    after = [record({"seen": "1110"}), record({"seen": "1100"}, seed=1)]
    found = success(after)["seen"]
    assert (found["successes"], found["n_episodes"], found["seeds"], found["progress"]) == (5, 8, 2, 0.5)
    gain = against(before, after)["seen"]
    assert gain["ratio"] == pytest.approx(5)
    assert gain["change"] == pytest.approx((0.5 + 1 + 0.5) / 4)


def claim_a(scale, ours: dict[str, str], others: dict[str, str]) -> dict[str, Any]:
    return {
        a_generalisation.cell_name(who, "nano", labels, "clock", seed): record(
            ours if who == "ours_prior" else others, seed
        )
        for who in scale.contestants
        for labels in scale.deciding
        for seed in scale.seeds
    }


def test_claim_a_holds_only_against_every_action_only_policy():
    scale = replace(CPU, budgets={"clock": CPU.deciding})
    ours = {"seen": digits(90), "unseen_tasks": digits(80), "unseen_scenes": digits(40)}
    others = {"seen": digits(88), "unseen_tasks": digits(20), "unseen_scenes": digits(36)}
    records = claim_a(scale, ours, others)
    tasks, scenes, seen = a_generalisation.report(scale, records).findings
    assert (tasks.verdict, scenes.verdict, seen.verdict) == ("holds", "does not hold", "holds")
    assert tasks.value == "×4.0"
    for name in records:
        if name.startswith("act-"):
            records[name] = record(others | {"unseen_tasks": digits(80)})
    tasks, *_ = a_generalisation.report(scale, records).findings
    assert (tasks.verdict, tasks.value) == ("does not hold", "×1.0")
    assert "against ACT" in tasks.note


def test_claim_a_is_not_measured_while_a_seed_is_missing_but_shows_what_there_is():
    scale = replace(CPU, budgets={"clock": CPU.deciding})
    both = {"seen": digits(90), "unseen_tasks": digits(80), "unseen_scenes": digits(40)}
    records = claim_a(scale, both, both)
    for labels in scale.deciding:
        del records[f"act-{labels}_labels-clock-seed_2"]
    report = a_generalisation.report(scale, records)
    assert {finding.verdict for finding in report.findings} == {NOT_YET}
    assert report.metrics["clock"]["success"]["5_labels"]["act"]["seen"]["seeds"] == 2
    table = report.tables[0]
    assert list(table.rows)[-1] == "ours prior"
    assert len(table.charts) == len(table.columns) == 3 * len(scale.deciding)


def test_demonstrations_beyond_the_goal_have_verdicts_of_their_own():
    scale = replace(CPU, budgets={"clock": (20, 100)}, deciding=(20,))
    ours, others = ({name: digits(count) for name in a_generalisation.CONDITIONS} for count in (90, 20))
    records = claim_a(scale, ours, others)
    for name, found in claim_a(replace(scale, deciding=(100,)), others, others).items():
        records[name] = found
    findings = a_generalisation.report(scale, records).findings
    verdicts = {finding.claim.partition(",")[0]: finding.verdict for finding in findings}
    assert verdicts == {
        "Unseen tasks": "holds",
        "Unseen scenes": "holds",
        "Seen tasks": "holds",
        "Unseen tasks after 100 demonstrations": "does not hold",
        "Unseen scenes after 100 demonstrations": "does not hold",
        "Seen tasks after 100 demonstrations": "holds",
    }


def test_the_map_of_claim_a_says_where_video_helps():
    scale = replace(CPU, budgets={"clock": (20,)}, deciding=(20,))
    counts = {"no_video_scratch": (20, 40, 40), "ours_scratch": (20, 40, 10), "ours_prior": (60, 40, 60)}
    records = {
        a_generalisation.cell_name(who, "nano", 20, "clock", seed): record(
            dict(zip(a_generalisation.CONDITIONS, map(digits, found), strict=True)), seed
        )
        for who, found in counts.items()
        for seed in scale.seeds
    }
    report = a_generalisation.report(scale, records)
    video = report.metrics["clock"]["video"]["20_labels"]
    effects = {added: [case["effect"] for case in cases.values()] for added, cases in video.items()}
    assert effects == {
        "prior and video loss together": ["helps", "neutral", "helps"],
        "the prior, video loss kept": ["helps", "neutral", "helps"],
        "the video loss, from scratch": ["neutral", "neutral", "hurts"],
    }
    table = report.tables[-1]
    assert list(table.rows) == ["seen, 20", "unseen tasks, 20", "unseen scenes, 20"]
    assert table.rows["unseen scenes, 20"][table.columns.index("the video loss, from scratch")].startswith(
        "hurts: -28 ("
    )
    assert effect((-0.04, 0.06)) == "open"


def test_cells_of_other_settings_are_not_taken_together():
    records = {f"seed_{seed}": record({"seen": digits(9)}, seed, steps=500 + seed // 2) for seed in range(3)}
    assert len(group(records, ["seed_0", "seed_1", "seed_9"])) == 2
    with pytest.raises(ValueError, match=r"differ in steps: .*seed_2.*501"):
        group(records, list(records))
    with pytest.raises(ValueError, match="differ in steps"):
        group(records | {"seed_2": record({"seen": digits(9)})}, ["seed_0", "seed_2"])
    begun = {
        "old": record({"seen": digits(9)}),
        "new": record({"seen": digits(9)}, prior_sha256="aa"),
        "other": record({"seen": digits(9)}, prior_sha256="bb"),
    }
    assert len(group(begun, ["old", "new"])) == 2  # the old one did not say
    with pytest.raises(ValueError, match="differ in prior_sha256"):
        group(begun, list(begun))


def test_claim_b_asks_for_42_percent_more():
    def verdict(without: int, with_video: int) -> str:
        counts = {b_video.WITHOUT: without, b_video.SEEN: without, b_video.UNSEEN: with_video}
        records = {
            b_video.cell_name(video, seed): record({"seen": digits(90), "unseen_tasks": digits(count)}, seed)
            for video, count in counts.items()
            for seed in CPU.seeds
        }
        return b_video.report(CPU, records).findings[0].verdict

    assert verdict(20, 80) == "holds"
    assert verdict(60, 66) == "does not hold"
    assert verdict(40, 58) == "undecided"
    assert b_video.report(CPU, {}).findings[0].verdict == NOT_YET


def new_robot(adapted: int, after: float) -> dict[str, Any]:
    """Cells of claim C in which the known arms succeed in 80 of 100 scenes before."""

    def trials(successes: int) -> dict[str, Any]:
        return rate([True]) | {"outcomes": digits(successes, 100)}

    own = {
        "adapted": trials(adapted) | {"below_better_yardstick": 0.3},
        "heads_from_scratch": trials(50),
        **{arm: {"before": trials(80), "after": trials(round(100 * after))} for arm in c_new_robot.KNOWN_ARMS},
    }
    cell = {"minutes_of_play": 30.0, "by_seed": {"0": own}}
    return {c_new_robot.cell_name(30, seed): record({}, seed) | {"metrics": cell} for seed in CPU.seeds}


@pytest.mark.parametrize(
    ("adapted", "after", "verdict"),
    [(70, 0.8, "holds"), (70, 0.6, "does not hold"), (10, 0.8, "does not hold"), (42, 0.8, "undecided")],
)
def test_claim_c_asks_for_the_new_arm_and_for_the_old_ones(adapted: int, after: float, verdict: str):
    report = c_new_robot.report(CPU, new_robot(adapted, after))
    assert report.findings[0].verdict == verdict
    found = report.metrics["30_minutes"]
    assert found["adapted"]["n_episodes"] == 300
    assert found["known_arms"]["scenes"] == 300
    assert found["known_arms"]["change"] == pytest.approx(after - 0.8)
    assert found["beyond_share_of_known"]["change"] == pytest.approx(adapted / 100 - 0.4)
    assert found["adapted_against_heads_from_scratch"]["change"] == pytest.approx((adapted - 50) / 100)


def test_pushes_and_touches_are_told_apart():
    outcomes = "".join(str(int(scene % 9 >= 6)) for scene in range(108))  # the seen touches are tasks 6, 7 and 8
    conditions = apart(CPU, record({"seen": outcomes, "unseen_tasks": digits(9)}))["metrics"]["conditions"]
    counts = {name: (found["successes"], found["n_episodes"]) for name, found in conditions.items()}
    assert counts == {"seen_pushes": (0, 72), "seen_touches": (36, 36), "unseen_tasks": (9, 108)}
    assert list(conditions) == list(counts)


def test_scaling_compares_the_most_with_the_least():
    counts = {"64x3": 30, "nano": 40, "192x6": 60}
    records = {
        scaling.cell_name("size", size, seed): record(
            {"seen": digits(90), "unseen_tasks": digits(count), "unseen_scenes": digits(9)}, seed
        )
        for size, count in counts.items()
        for seed in CPU.seeds
    }
    size, tasks, scenes = scaling.report(CPU, records).findings
    assert (size.verdict, size.value) == ("holds", "+28 points")
    assert tasks.verdict == scenes.verdict == NOT_YET


def test_harder_tasks_are_judged_one_setting_after_the_other():
    counts = {"ours_prior": 60, "no_video_scratch": 20, "ours_scratch": 20}
    records = {
        harder.cell_name("grasp_and_place", who, seed): record(
            {"seen": digits(count), "unseen_tasks": digits(count), "unseen_scenes": digits(9)}, seed
        )
        for who, count in counts.items()
        for seed in CPU.seeds
    }
    report = harder.report(CPU, records)
    stages, place = report.findings
    assert (stages.verdict, stages.note) == (NOT_YET, "cells are missing")
    assert (place.verdict, place.value) == ("holds", "+37 points")
    effects = report.metrics["video"]["grasp_and_place"]
    assert effects["the video loss, from scratch"]["seen"]["effect"] == "neutral"
    assert effects["the prior, video loss kept"]["unseen_tasks"]["effect"] == "helps"
    success, video = report.tables
    assert success.columns == [f"grasp and place, {c}" for c in ("seen", "unseen tasks", "unseen scenes")]
    assert list(video.rows) == success.columns


def test_the_page_says_what_holds_and_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    monkeypatch.setattr("benchmarks.claims.scales.OUTPUTS", tmp_path / "outputs")
    folder = tmp_path / "results/claims/cpu/b"
    folder.mkdir(parents=True)
    for video, count in ((b_video.WITHOUT, 0), (b_video.UNSEEN, 80)):
        for seed in CPU.seeds:
            made = record({"seen": digits(90), "unseen_tasks": digits(count)}, seed)
            (folder / f"{b_video.cell_name(video, seed)}.json").write_text(json.dumps(made))
    html = page.write(CPU, {"a": "a_generalisation", "b": "b_video"}).read_text()
    assert "B · Video of other robots: 6 of 9 cells measured" in html
    missing = ", ".join(f"{b_video.SEEN}-seed_{seed}" for seed in CPU.seeds)
    assert f"python -m benchmarks.claims b --scale=cpu\n# missing: {missing}<" in html
    assert f"A · Unseen tasks and unseen scenes: 0 of {len(a_generalisation.cells(CPU))} cells measured" in html
    assert html.count('class="finding holds"') == 1
    assert "×∞" in html
    written = json.loads((folder.parent / "b.json").read_text())
    assert written["date"].startswith("2026-11-23T02")
    assert written["metrics"]["against"]["video_of_unseen_tasks against no_video"]["unseen_tasks"]["ratio"] is None
    assert not (folder.parent / "a.json").exists()
    text = fill_results.results_page(tmp_path / "results")
    assert "## Claim B: video of other robots" in text
    assert "| holds: ×∞ |" in text
    assert "| success, video of unseen tasks, unseen tasks | 74 % | 240 of 324, 69–79 % |" in text
    assert "| against, video of unseen tasks against no video, unseen tasks | ∞ (∞–∞) | +74.1 points, " in text
