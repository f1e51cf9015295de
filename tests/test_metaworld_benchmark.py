"""The benchmark of Meta-World's experts."""

import json
from pathlib import Path

import pytest

pytest.importorskip("metaworld")

from benchmarks import common, metaworld_experts
from lerobot_wam.metaworld.tasks import GROUPS, Task


def test_it_counts_successes_and_times_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setitem(GROUPS, "all", (Task("drawer-close-v3"),))
    metaworld_experts.main(["--repetitions=1"])
    metrics = json.loads((tmp_path / "metaworld_experts.json").read_text())["metrics"]
    row = metrics["tasks"]["drawer-close-v3"]
    assert row["held_out"]
    for who in ("expert", "expert_with_noise"):
        assert row[who]["successes"] == row[who]["mean_progress"] == 1
        assert 5 < row[who]["mean_steps"] < 60
    assert row["holding_still"]["successes"] == 0
    assert row["holding_still"]["mean_steps"] is None
    assert metrics["cpu_time"]["images_per_s_64px"] > metrics["cpu_time"]["lerobot_environment_steps_per_s"]
