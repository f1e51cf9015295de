"""The benchmark of surprise as a failure detector: what it disturbs, measures and keeps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("mujoco")

from benchmarks import common, surprise
from lerobot_wam.runtime.surprise import Calibration
from lerobot_wam.sim.env import TabletopEnv


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order():
    assert surprise.auroc([3.0, 1.0], [0.5, 2.0, float("nan")]) == 3 / 4
    assert surprise.auroc([1.0], [1.0]) == 0.5
    assert surprise.auroc([], [1.0]) is None


def test_only_successes_say_what_is_usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    policy = common.nano_policy("cpu", 0, num_layers=1, ema_decay=0.0)

    def drive(policy: Any, env: Any, watching: Any, kind: str, seed: int) -> surprise.Episode:
        for place in (0, 1):
            watching(None, place, torch.full((96, 2, 2), float(seed)))
        return surprise.Episode(seed, 2, 9, success=seed % 2 == 0, surprises=[])

    monkeypatch.setattr(surprise, "drive", drive)
    made = surprise.calibrate(policy, TabletopEnv(), range(1, 5), 0.5, tmp_path / "calibration.json")
    assert made.latents == [2, 2]
    assert made.scale[0][0] == pytest.approx(np.sqrt((2**2 + 4**2) / 2), rel=1e-4)


def test_a_run_writes_every_kind_and_a_second_one_repeats_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    policy = common.nano_policy("cpu", 0, num_inference_steps=1, num_layers=1, ema_decay=0.0)
    policy.save_pretrained(tmp_path / "policy")
    words = [f"--checkpoint={tmp_path / 'policy'}", f"--folder={tmp_path / 'runs'}", "--scenes=4", "--undisturbed=2"]
    words += ["--episode-length=13", "--reactions=ignore,replan"]
    usual = Calibration([[1.0] * 96] * 2, [1e-9] * 2, 0.5, [1, 1], "nothing", {})
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/calibration.json").write_text(json.dumps(vars(usual)))

    def metrics() -> dict[str, Any]:
        surprise.main(words)
        return json.loads((tmp_path / "results/surprise.json").read_text())["metrics"]

    found = metrics()
    assert set(found["disturbed"]) == {"object", "camera", "lag", "all"}
    reached = found["disturbed"]["all"]["n_episodes"]
    assert 6 <= reached <= 12
    assert found["success_by_reaction"]["replan"]["all"]["against_ignore"]["scenes"] == reached
    assert found["undisturbed"]["n_episodes"] == 2
    rows = [json.loads(line) for line in (tmp_path / "runs/ignore_none.jsonl").read_text().splitlines()]
    assert [[step for step, _ in row["surprises"]] for row in rows] == [[*range(4, row["steps"], 4)] for row in rows]
    assert (tmp_path / "runs/surprise.svg").read_text().startswith("<svg")
    monkeypatch.setattr(surprise, "drive", None)
    assert metrics() == found
