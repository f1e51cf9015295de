"""The demonstration's commands are what it runs, and its steps repair an interrupted run."""

import json
from pathlib import Path

import pytest
from lerobot.configs.train import TrainPipelineConfig

from lerobot_wam.demo.plan import DemoPlan
from lerobot_wam.demo.run import run_demo


def test_a_quick_plan_is_smaller_and_says_so(tmp_path: Path) -> None:
    plan = DemoPlan(tmp_path)
    quick = plan.shortened()
    assert quick.quick
    assert quick.episodes < plan.episodes
    assert quick.steps < plan.steps
    assert plan.eval_episodes >= 200
    assert plan.resized(None, 7).steps == 7
    assert plan.resized(5, None).episodes == 5


def test_flags_are_lerobots(tmp_path: Path) -> None:
    plan = DemoPlan(tmp_path)
    names = {argument.removeprefix("--").partition("=")[0] for argument in plan.train_arguments}
    top = {name.partition(".")[0] for name in names}
    assert top <= set(TrainPipelineConfig.__dataclass_fields__)
    assert f"--seed={plan.seed}" in plan.train_arguments
    assert f"--tasks={plan.shares}" in plan.record_command


@pytest.mark.slow
def test_the_whole_demonstration_runs_and_runs_again_for_nothing(tmp_path: Path) -> None:
    plan = DemoPlan(tmp_path / "demo").shortened()
    page = run_demo(plan)
    results = json.loads((plan.folder / "results.json").read_text())
    assert results["metrics"]["n_episodes"] == plan.eval_episodes
    assert "Quick run" in page.read_text()
    stamp = plan.last_checkpoint.stat().st_mtime
    assert run_demo(plan) == page
    assert plan.last_checkpoint.stat().st_mtime == stamp
