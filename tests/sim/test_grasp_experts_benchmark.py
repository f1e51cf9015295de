"""The count of how often the scripted experts succeed."""

import json
from pathlib import Path

import pytest

from benchmarks import common, grasp_experts


def test_it_counts_first_attempts_per_arm_tasks_and_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    grasp_experts.main(["--arms", "viperx_gripper", "--tasks", "place,place-red-cyan", "--episodes", "2"])
    result = json.loads((tmp_path / "grasp_experts.json").read_text())
    assert result["command"].startswith("python -m benchmarks.grasp_experts --arms viperx_gripper")
    rows = result["metrics"]["rows"]
    assert [(row["tasks"], row["looks"]) for row in rows] == [("place", "plain"), ("place-red-cyan", "plain")]
    for row in rows:
        assert row["episodes"] == 2
        assert row["success_low"] <= row["success"] <= row["success_high"]
        assert 15 < row["mean_steps"] < 100
