"""Fixtures of the policy tests: datasets that are written once, and LeRobot's own training function."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState
from lerobot.configs import PreTrainedConfig
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.scripts import lerobot_train
from tiny_policies import MOBILE_JOINTS, write_dataset


@pytest.fixture(scope="session", autouse=True)
def _quiet_datasets() -> None:
    import datasets

    datasets.utils.logging.disable_progress_bar()


@pytest.fixture(scope="session")
def arm_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes of 24, 24, 20 and 20 steps of a built-in embodiment at 10 fps."""
    return write_dataset(tmp_path_factory.mktemp("data") / "arm")


@pytest.fixture(scope="session")
def mobile_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A robot that no YAML knows: two cameras, a gripper, 30 fps."""
    root = tmp_path_factory.mktemp("data") / "mobile"
    return write_dataset(
        root, (30, 30), robot_type="mobile_lift", fps=30, cameras=("head", "wrist"), joints=MOBILE_JOINTS
    )


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Train with LeRobot's own function; returns the run's folder."""
    monkeypatch.setattr(lerobot_train, "init_logging", lambda **kwargs: None)  # it would take pytest's handlers away
    monkeypatch.setattr(sys, "argv", ["lerobot-train"])

    def run(data: Path, output: Path, policy: PreTrainedConfig, eval_split: float = 0.0, **settings: Any) -> Path:
        AcceleratorState._reset_state(reset_partial_state=True)  # else the first run fixes everyone's precision
        settings = {"steps": 2, "batch_size": 2, "save_freq": 0, "log_freq": 1, "env_eval_freq": 0} | settings
        lerobot_train.train(
            TrainPipelineConfig(
                dataset=DatasetConfig(
                    f"local/{data.name}", root=str(data), video_backend="pyav", eval_split=eval_split
                ),
                policy=policy,
                output_dir=output,
                num_workers=0,
                **settings,
            )
        )
        return output

    return run
