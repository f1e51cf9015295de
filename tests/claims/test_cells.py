"""Cells are measured once, in the order in which they decide, and say how to repeat them."""

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks import common
from benchmarks.claims import a_generalisation, scaling
from benchmarks.claims.__main__ import CLAIMS, main
from benchmarks.claims.cells import Cell, chosen, command, missing, records, run
from benchmarks.claims.findings import NOT_YET
from benchmarks.claims.scales import CPU, SCALES, SMOKE

ROOT = Path(__file__).parents[2]
KEYS = {"command", "date", "commit", "machine", "versions", "seed", "metrics"}


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for results in place of the published ones."""
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    return tmp_path


def counting(done: list[str], name: str) -> Callable[[], dict[str, Any]]:
    return lambda: done.append(name) or {"length": len(name)}


def test_a_second_run_measures_only_what_is_missing(results: Path):
    done: list[str] = []
    cells = [Cell("a", name, seed, counting(done, name)) for seed, name in enumerate(("first", "second", "third"))]
    run(SMOKE, cells[:1])
    run(SMOKE, cells)
    assert done == ["first", "second", "third"]
    assert missing(SMOKE, cells) == []
    found = records(SMOKE, cells)
    assert list(found) == done
    assert set(found["second"]) == KEYS
    assert (found["second"]["seed"], found["second"]["metrics"]) == (1, {"length": 6})
    assert json.loads((results / "claims/smoke/a/second.json").read_text()) == found["second"]


def test_a_cell_that_fails_leaves_nothing_behind():
    def fail() -> dict[str, Any]:
        raise RuntimeError("no power")

    cell = Cell("a", "cell", 0, fail)
    with pytest.raises(RuntimeError, match="no power"):
        run(SMOKE, [cell])
    assert missing(SMOKE, [cell]) == [cell]


@pytest.mark.parametrize("scale", SCALES.values(), ids=list(SCALES))
def test_what_is_not_measured_is_called_so(scale):
    for name in CLAIMS.values():
        report = import_module(f"benchmarks.claims.{name}").report(scale, {})
        assert {finding.verdict for finding in report.findings} <= {NOT_YET}, name
        assert not report.tables, name


@pytest.mark.parametrize("scale", SCALES.values(), ids=list(SCALES))
def test_every_cell_has_a_name_of_its_own_and_a_command_that_chooses_it_alone(scale):
    for name in CLAIMS.values():
        cells = import_module(f"benchmarks.claims.{name}").cells(scale)
        names = [cell.name for cell in cells]
        assert len(set(names)) == len(names)
        for cell in cells:
            *_, key, at, only = shlex.split(command(scale, cell))
            assert (key, at) == (cell.claim, f"--scale={scale.name}")
            assert CLAIMS[key] == name
            assert chosen(cells, only.removeprefix("--only=")) == [cell]


def test_published_results_say_how_to_repeat_them():
    for path in sorted((ROOT / "benchmarks/results/claims").rglob("*.json")):
        result = json.loads(path.read_text())
        assert set(result) == KEYS, path
        assert result["command"].startswith("python -m benchmarks.claims"), path
        assert f"--scale={path.relative_to(ROOT / 'benchmarks/results/claims').parts[0]}" in result["command"], path
        assert str(ROOT) not in path.read_text(), path


def test_cells_that_decide_come_first():
    names = [cell.name for cell in a_generalisation.cells(CPU)]
    assert names[:3] == [
        "ours_prior-5_labels-clock-seed_0",
        "ours_prior-20_labels-clock-seed_0",
        "no_video_scratch-5_labels-clock-seed_0",
    ]
    few, many, same_samples = (
        next(i for i, name in enumerate(names) if part in name) for part in ("seed_2", "-100_labels", "-samples")
    )
    assert few < many < same_samples
    assert len(names) == (3 + 1) * 3 * len(CPU.contestants)


def test_seeds_and_patterns_choose_cells(capsys: pytest.CaptureFixture):
    main(["b", "--scale=cpu", "--list", "--only=no_video*", "--seeds=0,2"])
    assert capsys.readouterr().out.split() == ["no_video-seed_0", "no_video-seed_2"]
    with pytest.raises(SystemExit, match="no cell of claim b matches --only='nothing'"):
        main(["b", "--scale=cpu", "--only=nothing"])


def test_diversity_is_compared_at_the_same_number_of_demonstrations():
    from lerobot_wam.sim.tasks import select_tasks

    runs = scaling.settings(CPU)
    for question in ("tasks", "scenes"):
        counts = {run.labels * len(select_tasks(run.tasks or CPU.seen)) for run in runs[question].values()}
        assert counts == {900}
    for tasks in CPU.fewer_tasks:
        stages = {stage for task in select_tasks(tasks) for stage in task.stages}
        held_out = {stage for task in select_tasks(CPU.unseen) for stage in task.stages}
        assert stages.isdisjoint(held_out)
        assert {stage.verb for stage in stages} >= {stage.verb for stage in held_out}
        assert {stage.colour for stage in stages} >= {stage.colour for stage in held_out}


def test_a_budget_of_time_is_the_contestants_own_and_one_of_samples_that_of_ours(results: Path):
    from benchmarks.claims.runs import steps

    costs = {name: {"train_step_ms_p50": ms} for name, ms in (("ours", 300.0), ("act", 100.0), ("ours_64x3", 150.0))}
    (results / "claims/cpu").mkdir(parents=True)
    (results / "claims/cpu/step_costs.json").write_text(json.dumps({"metrics": {"contestants": costs}}))
    scale = replace(CPU, seconds=30.0)
    assert [steps(scale, "clock", who) for who in ("ours_prior", "ours_scratch", "act")] == [100, 100, 300]
    assert steps(scale, "clock", "ours_scratch", "64x3") == 200
    assert [steps(scale, "samples", who) for who in ("ours_prior", "act")] == [100, 100]
    assert steps(scale, "samples", "ours_scratch", "64x3") == 100
    assert steps(SMOKE, "clock", "act") == SMOKE.steps
