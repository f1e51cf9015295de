"""Shared fixtures. Torch runs on one thread: two OpenMP pools on two cores are ten times slower than one."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MUJOCO_GL", "egl")

import pytest
import torch

torch.set_num_threads(1)
pytest_plugins = ["hub_endpoint"]


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder with the official implementation's recorded numbers."""
    directory = Path(os.environ.get("WAM_GOLDEN_DIR", Path(__file__).parents[1] / "../shared/golden"))
    if not (directory / "schedulers.safetensors").is_file():
        refuse = pytest.fail if os.environ.get("WAM_REQUIRE_GOLDEN") == "1" else pytest.skip
        refuse(f"golden data not found in {directory}; set WAM_GOLDEN_DIR to the folder that holds it")
    return directory


@pytest.fixture
def motor_buses(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """LeRobot's drivers without their motor libraries; the motors that one declares end up in the dict, by name."""
    from lerobot.robots.koch_follower import koch_follower
    from lerobot.robots.lekiwi import lekiwi
    from lerobot.robots.so_follower import so_follower
    from lerobot.robots.unitree_g1 import unitree_g1

    declared: dict[str, Any] = {}

    def bus(port: str, motors: dict[str, Any], calibration: Any) -> SimpleNamespace:
        declared.update(motors)
        return SimpleNamespace(motors=motors, is_connected=False)

    for module, name in ((so_follower, "Feetech"), (lekiwi, "Feetech"), (koch_follower, "Dynamixel")):
        monkeypatch.setattr(module, f"{name}MotorsBus", bus)
    monkeypatch.setattr(unitree_g1, "require_package", lambda *args, **kwargs: None)
    monkeypatch.setattr(unitree_g1, "make_locomotion_controller", lambda name: name)
    return declared
