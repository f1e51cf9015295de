"""The benchmarks of fewer passes compare what they say they compare; the simulator is left out."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from lerobot.scripts import lerobot_train
from tiny_policies import build_policy, write_dataset

from benchmarks import common, fill_results, flash, lossy_settings

ROBOT = "wam_sim_viperx"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    threads = torch.get_num_threads()
    yield tmp_path / "results"
    torch.set_num_threads(threads)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "arm", (20, 20), size=64)


def test_settings_are_measured_against_exact(
    results: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    build_policy(data).save_pretrained(tmp_path / "policy")
    asked: dict[str, Sequence[str]] = {}

    def evaluate(policy: Path, arm: str, episodes: int, seed: int, folder: Path, flags: Sequence[str]) -> list[bool]:
        asked[folder.name] = flags
        return [folder.name == "exact"] * episodes

    monkeypatch.setattr(lossy_settings, "evaluate", evaluate)
    names = "exact,5_of_16,5_of_16_extrapolated,flash"
    lossy_settings.main(
        [
            f"--checkpoint={tmp_path / 'policy'}",
            f"--dataset={data}",
            f"--settings={names}",
            "--windows=3",
            "--episodes=4",
        ]
    )
    found = json.loads((results / "lossy_settings.json").read_text())["metrics"]["settings"]
    assert list(found) == names.split(",")
    shares = {name: row["action_distance_share_of_range"] for name, row in found.items()}
    assert shares.pop("exact") == 0
    assert len(set(shares.values())) == 3
    assert min(shares.values()) > 0
    assert found["exact"]["approximations"] == []
    assert found["flash"]["approximations"][0] == "num_inference_steps=1 solver steps, 16 are exact"
    assert "--policy.skipped_steps=extrapolate" in asked["5_of_16_extrapolated"]
    assert found["flash"]["success_change"] == -1
    table = fill_results.summary(results)
    assert "| `--policy.speed=flash`, nano | success 0 %; actions " in table
    assert "| 0 of 4, 0–49 %; -100.0 points, -100.0 to -100.0 |" in table
    with pytest.raises(SystemExit):
        lossy_settings.main([f"--checkpoint={tmp_path}", f"--dataset={data}", "--settings=exact,turbo"])


def test_flash_and_its_twin_differ_in_their_noise_alone(
    results: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lerobot_train, "init_logging", lambda **kwargs: logging.getLogger())
    AcceleratorState._reset_state(reset_partial_state=True)
    outcomes = {"flash_1_step": [True, True], "twin_8_steps": [True, False], "twin_1_step": [False, False]}
    acted: list[tuple[str, str]] = []

    def evaluate(policy: Path, arm: str, episodes: int, seed: int, folder: Path, flags: Sequence[str]) -> list[bool]:
        acted.append((policy.parents[2].name, flags[-1] if "twin" in folder.name else flags[0]))
        return outcomes[folder.name]

    monkeypatch.setattr(flash, "evaluate", evaluate)
    folder = tmp_path / "flash"
    arguments = [f"--dataset={data}", "--seeds=3", "--steps=1", "--batch-size=1", "--episodes=2", f"--folder={folder}"]
    flash.main(arguments)
    assert acted == [
        ("flash", "--policy.num_inference_steps=1"),
        ("twin", "--policy.num_inference_steps=8"),
        ("twin", "--policy.num_inference_steps=1"),
    ]
    settings: list[dict[str, Any]] = []
    for name in ("flash", "twin"):
        stored = folder / "seed_3" / name / "checkpoints/last/pretrained_model/train_config.json"
        config = json.loads(stored.read_text())
        settings.append(config["policy"] | {"seed": config["seed"], "steps": config["steps"]})
    assert {key for key, value in settings[0].items() if value != settings[1][key]} == {"noise_mode"}
    assert (settings[0]["noise_mode"], settings[0]["noise_beta_alpha"], settings[0]["action_levels"]) == (
        "decoupled",
        7.0,
        "chunk",
    )
    monkeypatch.setattr(flash, "train", None)  # a second run has nothing to train
    flash.main(arguments)
    metrics = json.loads((results / "flash.json").read_text())["metrics"]
    assert metrics["flash_against_twin_8_steps"]["change"] == 0.5
    assert metrics["flash_against_twin_1_step"]["change_95"] == [1.0, 1.0]
    assert metrics["success_by_seed"]["twin_8_steps_seed_3"]["successes"] == 1
    row = "| success 100 %, twin 50 % | 1 training seeds, 2 scenes; +50.0 points, -48.0 to +148.0 |"
    assert row in fill_results.summary(results)
