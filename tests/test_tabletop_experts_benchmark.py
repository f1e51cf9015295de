"""The benchmark of the tabletop's experts."""

import json
from pathlib import Path

import pytest

pytest.importorskip("mujoco")

from benchmarks import common, tabletop_experts


@pytest.mark.parametrize(
    ("arm", "tasks", "longest"), [("so101", "single", 25), ("viperx_gripper", "place,place-red-cyan", 100)]
)
def test_it_counts_first_attempts_and_successes_of_every_row(
    arm: str, tasks: str, longest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    tabletop_experts.main([f"--arms={arm}", f"--tasks={tasks}", "--looks=plain,unseen", "--repetitions=3"])
    result = json.loads((tmp_path / "tabletop_experts.json").read_text())
    assert result["command"].startswith(f"python -m benchmarks.tabletop_experts --arms={arm}")
    rows = result["metrics"]["rows"]
    expected = [(arm, group, looks) for group in tasks.split(",") for looks in ("plain", "unseen")]
    assert [(row["arm"], row["tasks"], row["looks"]) for row in rows] == expected
    for row in rows:
        recording, evaluation = row["recording"], row["evaluation"]
        assert recording["attempts"] >= recording["n_episodes"] == evaluation["n_episodes"] == 3
        assert recording["successes"] <= 3
        assert 3 < recording["steps_mean"] <= longest
        assert evaluation["successes"] == 3
        assert 3 < evaluation["steps_max"] <= longest
