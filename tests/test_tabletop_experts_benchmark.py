"""The benchmark of the tabletop's experts."""

import json
from pathlib import Path

import pytest

pytest.importorskip("mujoco")

from benchmarks import common, tabletop_experts


def test_it_counts_attempts_and_successes_of_every_arm_and_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(tabletop_experts, "ARMS", ("so101",))
    tabletop_experts.main(["--repetitions=3"])
    metrics = json.loads((tmp_path / "tabletop_experts.json").read_text())["metrics"]
    for looks in ("plain", "varied", "unseen"):
        row = metrics["so101"][looks]
        assert row["recording"]["attempts"] >= row["recording"]["episodes"] == 3
        assert row["evaluation"]["successes"] == row["evaluation"]["episodes"] == 3
        assert 3 < row["evaluation"]["steps_max"] <= 25
